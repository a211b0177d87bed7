// pg-boss: one measurement, asked for by the first argument, answered by one line of JSON.
import { PgBoss } from 'pg-boss';

const request = JSON.parse(process.argv[2]);
const BATCH = request.batch;

const boss = new PgBoss({
  connectionString: request.databaseUrl,
  max: 10,
  // No cron, no clean-up while it is measured.
  schedule: false,
  supervise: false,
  useListenNotify: true,
});
const problems = [];
boss.on('error', (error) => problems.push(String(error?.message ?? error)));

const jobs = (from, count) => Array.from({ length: count }, (_, i) => ({ data: { id: from + i } }));

async function fill(queue, count) {
  for (let from = 0; from < count; from += BATCH) {
    await boss.insert(queue, jobs(from, Math.min(BATCH, count - from)));
  }
}

// Jobs a second until the last one is acknowledged, or until the time is up. A worker takes jobs in batches and
// acknowledges each batch in one statement, then goes on at once; more than a few workers only wait for each other.
async function drain(queue, concurrency, count) {
  await fill(queue, count);
  let handled = 0;
  const began = performance.now();
  const limit = began + request.limitSeconds * 1000;
  await boss.work(
    queue,
    {
      localConcurrency: Math.min(concurrency, request.workers),
      batchSize: request.batchSize,
      burstWhenBatchFull: true,
      pollingIntervalSeconds: 0.5,
      notifyPollingIntervalSeconds: 0.5,
    },
    async (batch) => {
      handled += batch.length;
    },
  );
  while (handled < count && performance.now() < limit) await new Promise((resolve) => setTimeout(resolve, 1));
  // The last batch is acknowledged after its handler has returned.
  let left = count;
  while (left > 0 && performance.now() < limit) {
    const { rows } = await boss.getDb().executeSql(
      `SELECT count(*)::int AS left FROM pgboss.job WHERE name = '${queue}' AND state < 'completed'`,
    );
    left = rows[0].left;
  }
  const rate = (count - left) / ((performance.now() - began) / 1000);
  await boss.offWork(queue);
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

async function pickup(queue, samples) {
  let ran = () => {};
  await boss.work(queue, { batchSize: 1, pollingIntervalSeconds: 0.5 }, async () => ran(performance.now()));
  const latenciesUs = [];
  for (let i = -request.warm; i < samples; i += 1) {
    await new Promise((resolve) => setTimeout(resolve, request.idleMs));
    const handled = new Promise((resolve) => {
      ran = resolve;
    });
    const began = performance.now();
    await boss.send(queue, { id: i });
    const latency = (await handled) - began;
    if (i >= 0) latenciesUs.push(latency * 1000);
  }
  await boss.offWork(queue);
  return latenciesUs;
}

// Queues that tell their workers of new jobs pay for it with each insert, so only the idle one does.
async function fresh(name, notify) {
  await boss.deleteQueue(name);
  await boss.createQueue(name, { notify });
  return name;
}

async function measure() {
  await boss.start();
  // The first second of a program runs on cold code.
  await drain(await fresh('warm', false), 8, 2000);
  const queue = await fresh('jobs', request.measure === 'pickup');
  switch (request.measure) {
    case 'enqueue-one':
      return { rate: await enqueue(request.producers, (id) => boss.send(queue, { id }), 1) };
    case 'enqueue-batch': {
      const batch = jobs(0, BATCH);
      return { rate: await enqueue(1, () => boss.insert(queue, batch), BATCH) };
    }
    case 'drain':
      return { rate: await drain(queue, request.concurrency, request.jobs) };
    case 'pickup':
      return { latenciesUs: await pickup(queue, request.samples) };
    default:
      throw new Error(`there is no measurement ${request.measure}`);
  }
}

const answer = await measure();
if (problems.length > 0) throw new Error(problems.slice(0, 3).join('; '));
await boss.deleteQueue('jobs');
console.log(JSON.stringify(answer));
process.exit(0);
