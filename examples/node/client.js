// SPDX-License-Identifier: Apache-2.0
// A small client of a lockstep cluster on grpc-js: propose and query, redirects followed, unknown outcomes kept apart.
// Only the trailer `lockstep-outcome: not-appended` says that a failed command surely stands in no log. Every other
// failure, also one that grpc-js itself made, leaves the outcome unknown: OutcomeUnknown is thrown, nothing is sent again.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const definition = loader.loadSync('lockstep/v1/lockstep.proto', {
  includeDirs: [path.join(__dirname, '../../proto')],
  longs: String, // positions are 64 bits
  enums: String,
  defaults: true,
});
const v1 = grpc.loadPackageDefinition(definition).lockstep.v1;

class NotApplied extends Error {} // surely, and it could not be in time
class OutcomeUnknown extends Error {} // it may have been applied already, or be applied later
class Refused extends Error { // by the machine, with a code of its own
  constructor(code, reply) {
    super(`refused with code ${code}: ${reply}`);
    this.code = code;
    this.reply = reply;
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Client {
  // endpoints: ['HOST:PORT', ...]; timeout: milliseconds for one call, everything included
  constructor(endpoints, timeout = 10000) {
    this.endpoints = endpoints;
    this.timeout = timeout;
    this.current = endpoints[0];
    this.stubs = new Map();
  }

  // Have a command applied. Resolves to {reply, index, position, durability}.
  propose(command) {
    return this.run('Propose', { command: Buffer.from(command) }, true);
  }

  // Read the machine's state: linearizable, or the state of the node that is asked ('CONSISTENCY_LOCAL').
  query(text, consistency = 'CONSISTENCY_LINEARIZABLE') {
    return this.run('Query', { query: Buffer.from(text), consistency }, false);
  }

  close() {
    for (const stub of this.stubs.values()) stub.close();
  }

  // A stub whose channel is ready: what fails before that was never sent.
  connected(ms) {
    if (!this.stubs.has(this.current))
      this.stubs.set(this.current, new v1.Lockstep(this.current, grpc.credentials.createInsecure(),
        { 'grpc.enable_retries': 0 })); // grpc-js must not send a command again behind our back
    const stub = this.stubs.get(this.current);
    return new Promise((resolve) => stub.waitForReady(Date.now() + ms, (error) => resolve(error ? null : stub)));
  }

  pass(leader) {
    if (leader) this.current = leader;
    else this.current = this.endpoints[(this.endpoints.indexOf(this.current) + 1) % this.endpoints.length];
  }

  async run(method, request, appends) {
    const end = Date.now() + this.timeout;
    let why = 'no endpoint answers';
    let pause = 10;
    while (Date.now() < end) {
      const stub = await this.connected(Math.min(1000, end - Date.now()));
      if (stub === null) {
        why = `${this.current}: cannot be reached`;
        this.pass();
        continue;
      }
      const metadata = new grpc.Metadata();
      metadata.set('lockstep-forward', 'no'); // a follower names the leader instead
      const [error, response] = await new Promise((resolve) =>
        stub[method](request, metadata, { deadline: end }, (e, r) => resolve([e, r])));
      if (!error) {
        if (response.code !== 0) throw new Refused(response.code, response.reply.toString());
        return response;
      }
      const trailer = (name) => error.metadata && error.metadata.get(name)[0];
      why = `${this.current}: ${error.details}`;
      if (appends && trailer('lockstep-outcome') !== 'not-appended') throw new OutcomeUnknown(why);
      const leader = trailer('lockstep-leader');
      const wait = trailer('lockstep-retry-after-ms');
      if (error.code === grpc.status.RESOURCE_EXHAUSTED && wait) await sleep(Number(wait));
      else if (leader && leader !== this.current) this.pass(leader);
      else if (leader || error.code === grpc.status.UNAVAILABLE) this.pass();
      else throw new NotApplied(why); // it would be refused again
      await sleep(pause);
      pause = Math.min(pause * 2, 160);
    }
    throw new NotApplied(why);
  }
}

module.exports = { Client, NotApplied, OutcomeUnknown, Refused };
