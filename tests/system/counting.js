// SPDX-License-Identifier: Apache-2.0
// Counts with the client of examples/node until its standard input ends: node counting.js CLIENT.js ENDPOINTS WORKERS
// Each worker has a counter of its own. Prints one line of JSON: what every increment was answered, by worker.
'use strict';

const { Client } = require(process.argv[2]);

let stopped = false;
process.stdin.resume();
process.stdin.on('end', () => { stopped = true; });

async function worker(client, number) {
  const replies = [];
  const errors = [];
  while (!stopped) {
    try {
      replies.push(Number((await client.propose(`incr node${number} 1`)).reply.toString()));
    } catch (error) {
      errors.push(`${error.constructor.name}: ${error.message}`);
    }
    if (number === 0 && replies.length % 100 === 0) console.log(JSON.stringify({ done: replies.length }));
  }
  return { replies, errors };
}

async function main() {
  const client = new Client(process.argv[3].split(','), 60000);
  const workers = [];
  for (let i = 0; i < Number(process.argv[4]); i++) workers.push(worker(client, i));
  console.log(JSON.stringify({ workers: await Promise.all(workers) }));
  await client.close();
}

main();
