// SPDX-License-Identifier: Apache-2.0
// A small client of a lockstep cluster on grpc-js: propose and query, redirects followed, every command applied once.
// The client opens a session and numbers its commands. What fails with an unknown outcome is sent again with the same
// number, to whichever node leads then; the cluster applies it once, and answers as it did the first time. So
// OutcomeUnknown is left for what has no answer when the time is over. Only the trailer `lockstep-outcome: not-appended`
// says that a copy surely stands in no log. Many commands may run at a time; their order is not kept.
'use strict';

const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const definition = loader.loadSync('lockstep/v1/lockstep.proto', {
  includeDirs: [path.join(__dirname, '../../proto')],
  longs: String, // positions are 64 bits; a field's name is in camel case here: maxStalenessMs
  enums: String,
  defaults: true,
});
const v1 = grpc.loadPackageDefinition(definition).lockstep.v1;

const ATTEMPT = 2000; // milliseconds after which a node that does not answer is left for another
const FINAL = [grpc.status.INVALID_ARGUMENT, grpc.status.UNIMPLEMENTED, grpc.status.OUT_OF_RANGE,
  grpc.status.ALREADY_EXISTS, grpc.status.NOT_FOUND]; // it would be refused again

class NotApplied extends Error {} // surely, and it could not be in time; a query: it was not answered
class OutcomeUnknown extends Error {} // it may have been applied, or be later: no answer in time, or its session ended
class ReplyGone extends Error {} // it was applied, once, but so long ago that its reply is kept no more
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
    this.session = null; // a promise of {id, window, next, running, waiting, timer}
  }

  // Have a command applied, once. Resolves to {reply, index, position, durability}.
  async propose(command) {
    const end = Date.now() + this.timeout;
    for (;;) {
      const attempts = { unsure: false, why: 'no endpoint answers' };
      const { session, seq } = await this.number(end);
      try {
        const request = { command: Buffer.from(command), session: session.id, seq: String(seq) };
        const response = await this.run('Propose', request, end, attempts);
        session.used = Date.now();
        return this.answer(response);
      } catch (error) {
        if (error instanceof Refused) throw error;
        if (error.code === grpc.status.ALREADY_EXISTS) throw new ReplyGone(attempts.why);
        if (error.code === grpc.status.NOT_FOUND) {
          this.ended(session);
          if (!attempts.unsure) continue; // surely not applied in the session that ended: a new one, and a new number
        }
        throw attempts.unsure ? new OutcomeUnknown(attempts.why) : new NotApplied(attempts.why);
      } finally {
        session.running.delete(seq);
        session.waiting.splice(0).forEach((wake) => wake());
      }
    }
  }

  // Read the machine's state: linearizable, or as any node may answer it: 'CONSISTENCY_FOLLOWER' (linearizable, too),
  // 'CONSISTENCY_BOUNDED_STALE' with maxStalenessMs, 'CONSISTENCY_LOCAL'.
  async query(text, consistency = 'CONSISTENCY_LINEARIZABLE', maxStalenessMs = 0) {
    const attempts = { unsure: false, why: 'no endpoint answers' };
    try {
      const request = { query: Buffer.from(text), consistency, maxStalenessMs };
      return this.answer(await this.run('Query', request, Date.now() + this.timeout, attempts));
    } catch (error) {
      throw error instanceof Refused ? error : new NotApplied(attempts.why);
    }
  }

  async close() {
    const session = await Promise.resolve(this.session).catch(() => null);
    if (session) {
      this.ended(session);
      await this.run('CloseSession', { session: session.id }, Date.now() + 1000, {}).catch(() => {}); // else it just ends
    }
    for (const stub of this.stubs.values()) stub.close();
  }

  answer(response) {
    if (response.code !== 0) throw new Refused(response.code, response.reply.toString());
    return response;
  }

  // The next number. Seq s is not given before all at or below s - window are answered.
  async number(end) {
    for (;;) {
      if (this.session === null) this.session = this.open(end);
      const opening = this.session;
      let session;
      try {
        session = await opening;
      } catch (error) {
        if (this.session === opening) this.session = null;
        throw new NotApplied(error.message);
      }
      const [lowest] = session.running; // they are added in order
      if (lowest === undefined || session.next - lowest < session.window) {
        const seq = session.next++;
        session.running.add(seq);
        return { session, seq };
      }
      await new Promise((wake) => session.waiting.push(wake));
    }
  }

  // A session that was opened twice harms nobody: the one that nobody knows ends by itself.
  async open(end) {
    const attempts = { unsure: false, why: 'no endpoint answers' };
    const opened = await this.run('OpenSession', {}, end, attempts).catch(() => {
      throw new Error(attempts.why);
    });
    const session = { id: opened.session, window: opened.window, next: 1, running: new Set(), waiting: [], used: Date.now() };
    const third = opened.expiryMs / 3;
    session.timer = setInterval(() => {
      if (Date.now() < session.used + third) return;
      this.run('KeepAlive', { session: session.id }, Date.now() + third, {})
        .then(() => { session.used = Date.now(); }, () => {}); // the next propose finds out
    }, third / 4);
    session.timer.unref();
    return session;
  }

  ended(session) {
    clearInterval(session.timer);
    if (session.gone) return;
    session.gone = true;
    this.session = null;
  }

  // A stub whose channel is ready: what fails before that was never sent.
  connected(endpoint, ms) {
    if (!this.stubs.has(endpoint))
      this.stubs.set(endpoint, new v1.Lockstep(endpoint, grpc.credentials.createInsecure(),
        { 'grpc.enable_retries': 0 })); // what is sent again, and when, is decided here
    const stub = this.stubs.get(endpoint);
    return new Promise((resolve) => stub.waitForReady(Date.now() + ms, (error) => resolve(error ? null : stub)));
  }

  // Ask another node next, if `from` is still the one that is asked: the leader, if it was named.
  pass(from, leader) {
    if (this.current !== from) return;
    if (leader && leader !== from) this.current = leader;
    else this.current = this.endpoints[(this.endpoints.indexOf(from) + 1) % this.endpoints.length];
  }

  // The same request until it is answered. Nothing here may be wrong to send twice: commands are numbered.
  async run(method, request, end, attempts) {
    let pause = 10;
    while (Date.now() < end) {
      const endpoint = this.current;
      const stub = await this.connected(endpoint, Math.min(1000, end - Date.now()));
      if (stub === null) {
        attempts.why = `${endpoint}: cannot be reached`;
        this.pass(endpoint);
        continue;
      }
      const metadata = new grpc.Metadata();
      metadata.set('lockstep-forward', 'no'); // a follower names the leader instead
      const deadline = Math.min(end, Date.now() + ATTEMPT);
      const [error, response] = await new Promise((resolve) =>
        stub[method](request, metadata, { deadline }, (e, r) => resolve([e, r])));
      if (!error) return response;
      const trailer = (name) => error.metadata && error.metadata.get(name)[0];
      attempts.why = `${endpoint}: ${error.details}`;
      if (FINAL.includes(error.code)) throw error;
      if (trailer('lockstep-outcome') !== 'not-appended') attempts.unsure = true;
      if (error.code === grpc.status.RESOURCE_EXHAUSTED) {
        if (!trailer('lockstep-retry-after-ms')) throw error; // too large
        await sleep(Number(trailer('lockstep-retry-after-ms')));
      } else {
        this.pass(endpoint, trailer('lockstep-leader'));
      }
      await sleep(pause);
      pause = Math.min(pause * 2, 160);
    }
    throw new Error(attempts.why);
  }
}

module.exports = { Client, NotApplied, OutcomeUnknown, ReplyGone, Refused };
