import { defineConfig } from "vitest/config";

/** Tests of one room with real threads, processes or servers: they take seconds each. */
const threads = [
  "test/config/load.test.ts",
  "test/devices-sim/{fleet,main,main-verify,connection/transports,faults/bad-certificate,faults/fleet,faults/hostile-packets,faults/ledger}.test.ts",
  "test/devices-sim/{ledger/writer,payloads/{documentation,mosquitto},verify/sources}.test.ts",
  "test/dispatch/{dispatcher,exactly-once,handlers,supervision}.test.ts",
  "test/intake/{checkpointer,restore}.test.ts",
  "test/journal/{crash,hung-files,journal,mutation,recovery}.test.ts",
  "test/sinks/{files-crash,files.property,http*,influx*,kafka*,mqtt*,nats*,postgres*,redis*,sqlite-tables,wires-tls}.test.ts",
];

const endToEnd = ["test/{e2e,fuzz}/**/*.test.ts"];

/** Of these, what needs the disk or the processors for itself. */
const alone = [
  // What happens to its devices happens by the clock.
  "test/devices-sim/faults/{bad-certificate,fleet}.test.ts",
  "test/e2e/{chaos,dead-sink,demo,failed-write-back,full-disk,locked-database,power-cut,refused-calls,sigkill,simulator,sink-crash}.test.ts",
];
const patience = { testTimeout: 600_000, hookTimeout: 120_000 };

/**
 * `unit` is part of `npm run check` and takes seconds; `threads` and the `e2e` ones (the gateway as a process)
 * come with `npm test`.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: ["test/e2e/**", "test/fuzz/**", ...threads, ...alone],
          testTimeout: 60_000,
          maxWorkers: 2,
        },
      },
      {
        // They wait most of their time: for servers, clocks, disks.
        test: {
          name: "threads",
          include: threads,
          exclude: alone,
          testTimeout: 180_000,
          hookTimeout: 120_000,
          maxWorkers: 4,
        },
      },
      {
        test: { name: "e2e", include: endToEnd, exclude: alone, ...patience, maxWorkers: 2 },
      },
      {
        test: { name: "e2e-alone", include: alone, ...patience, fileParallelism: false },
      },
    ],
  },
});
