// BullMQ: one measurement, asked for by the first argument, answered by one line of JSON.
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const request = JSON.parse(process.argv[2]);
const BATCH = request.batch;
// What the handlers do: nothing.
const handler = async () => {};
// Finished jobs are forgotten, which is the least to do.
const options = { removeOnComplete: true };

const open = () => new Redis(request.redisUrl, { maxRetriesPerRequest: null });
const connections = [open()];
const queue = new Queue('jobs', { connection: connections[0], prefix: request.prefix });

function worker(concurrency, handle) {
  const connection = open();
  connections.push(connection);
  return new Worker('jobs', handle, { connection, prefix: request.prefix, concurrency, autorun: false });
}

async function fill(jobs) {
  for (let from = 0; from < jobs; from += BATCH) {
    const count = Math.min(BATCH, jobs - from);
    await queue.addBulk(Array.from({ length: count }, (_, i) => ({ name: 'job', data: { id: from + i }, opts: options })));
  }
}

// Jobs a second until the last one is acknowledged, or until the time is up.
async function drain(concurrency, jobs) {
  await fill(jobs);
  const drainer = worker(concurrency, handler);
  await drainer.waitUntilReady();
  let done = 0;
  const began = performance.now();
  const all = new Promise((resolve) => {
    drainer.on('completed', () => {
      done += 1;
      if (done === jobs) resolve();
    });
    setTimeout(resolve, request.limitSeconds * 1000).unref();
  });
  drainer.run();
  await all;
  const rate = done / ((performance.now() - began) / 1000);
  await drainer.close();
  return rate;
}

async function enqueue(producers, call, jobsInCall) {
  const until = performance.now() + request.seconds * 1000;
  const began = performance.now();
  let calls = 0;
  await Promise.all(
    Array.from({ length: producers }, async () => {
      while (performance.now() < until) {
        await call(calls);
        calls += 1;
      }
    }),
  );
  return (calls * jobsInCall) / ((performance.now() - began) / 1000);
}

async function pickup(samples) {
  let ran;
  const idle = worker(1, async () => ran(performance.now()));
  await idle.waitUntilReady();
  idle.run();
  const latenciesUs = [];
  for (let i = -request.warm; i < samples; i += 1) {
    await new Promise((resolve) => setTimeout(resolve, request.idleMs));
    const handled = new Promise((resolve) => {
      ran = resolve;
    });
    const began = performance.now();
    await queue.add('job', { id: i }, options);
    const latency = (await handled) - began;
    if (i >= 0) latenciesUs.push(latency * 1000);
  }
  await idle.close();
  return latenciesUs;
}

async function measure() {
  await queue.waitUntilReady();
  await queue.obliterate({ force: true });
  // The first second of a program runs on cold code.
  await drain(8, 2000);
  const one = (id) => queue.add('job', { id }, options);
  switch (request.measure) {
    case 'enqueue-one':
      return { rate: await enqueue(request.producers, one, 1) };
    case 'enqueue-batch': {
      const jobs = Array.from({ length: BATCH }, (_, id) => ({ name: 'job', data: { id }, opts: options }));
      return { rate: await enqueue(1, () => queue.addBulk(jobs), BATCH) };
    }
    case 'drain':
      return { rate: await drain(request.concurrency, request.jobs) };
    case 'pickup':
      return { latenciesUs: await pickup(request.samples) };
    default:
      throw new Error(`there is no measurement ${request.measure}`);
  }
}

const answer = await measure();
await queue.obliterate({ force: true });
console.log(JSON.stringify(answer));
connections.forEach((connection) => connection.disconnect());
process.exit(0);
