// SPDX-License-Identifier: Apache-2.0
// Counts visits in a lockstep cluster with the machine kv: node example.js [HOST:PORT,...]
'use strict';

const { Client, NotApplied, Refused } = require('./client');

const endpoints = process.argv[2] || process.env.LOCKSTEP_ENDPOINTS || '127.0.0.1:7401';

// Count one visit. Resolves to the answer; null: that failed, and was said.
async function count(client) {
  try {
    return await client.propose('incr visits 1');
  } catch (error) {
    // No answer in 10 s, however often it was sent: the one case that needs thought. Reading tells: did the count rise?
    const known = error instanceof NotApplied || error instanceof Refused;
    console.error(`${known ? 'surely not counted' : 'it may have been counted'}: ${error.message}`);
    process.exitCode = known ? 1 : 6;
    return null;
  }
}

async function main() {
  const client = new Client(endpoints.split(','));
  try {
    const answer = await count(client);
    if (answer === null) return;
    console.log(`visit ${answer.reply}, at position ${answer.position}, durable on a majority`);
    console.log(`the cluster says: ${(await client.query('get visits')).reply}`);
    try {
      await client.propose('cas visits none 0');
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.log(`as it should be: ${error.message}`);
    }
  } catch (error) {
    console.error(`it was counted; then: ${error.message}`);
    process.exitCode = 1;
  } finally {
    await client.close();
  }
}

main();
