// SPDX-License-Identifier: Apache-2.0
// Counts visits in a lockstep cluster with the machine kv: node example.js [HOST:PORT,...]
'use strict';

const { Client, OutcomeUnknown, Refused } = require('./client');

const endpoints = process.argv[2] || process.env.LOCKSTEP_ENDPOINTS || '127.0.0.1:7401';

async function main() {
  const client = new Client(endpoints.split(','));
  try {
    const answer = await client.propose('incr visits 1');
    console.log(`visit ${answer.reply}, at position ${answer.position}, durable on a majority`);
    console.log(`the cluster says: ${(await client.query('get visits')).reply}`);
    try {
      await client.propose('cas visits none 0');
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      console.log(`as it should be: ${error.message}`);
    }
  } catch (error) {
    // No answer in 10 s, however often it was sent: the one case that needs thought. Reading tells: did the count rise?
    const unknown = error instanceof OutcomeUnknown;
    console.error(`${unknown ? 'it may have been counted' : 'surely not counted'}: ${error.message}`);
    process.exitCode = unknown ? 6 : 1;
  } finally {
    await client.close();
  }
}

main();
