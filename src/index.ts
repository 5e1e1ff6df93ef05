// Everything that a configuration file may import: `import { defineGateway, … } from "sluice"`.

export { z } from "zod";
export { defineGateway } from "./config/schema.ts";
export type { GatewayDefinition, GatewaySettings } from "./config/schema.ts";
export { json } from "./decode/json.ts";
export type { Codec, Decoded } from "./decode/codec.ts";
export { on } from "./dispatch/handler.ts";
export type {
  Handler,
  HandlerContext,
  HandlerDefinition,
  HandlerOptions,
  HandlerPublish,
  HandlerState,
} from "./dispatch/handler.ts";
export { tcp } from "./listener/tcp.ts";
export type { ListenerDefinition } from "./listener/tcp.ts";
export type { Batch, Entry, Issue, Offset, QoS, Reading, UnixMs } from "./reading.ts";
export { files } from "./sinks/files/files.ts";
export { http } from "./sinks/http.ts";
export { influx } from "./sinks/influx.ts";
export { kafka } from "./sinks/kafka.ts";
export { mqtt } from "./sinks/mqtt.ts";
export { nats } from "./sinks/nats.ts";
export { postgres } from "./sinks/postgres/postgres.ts";
export { redis } from "./sinks/redis.ts";
export { defineSink, SinkError } from "./sinks/sink.ts";
export type {
  BatchLimits,
  RefusedEntry,
  Sink,
  SinkContext,
  SinkDefinition,
  SinkStream,
  SinkType,
  Written,
} from "./sinks/sink.ts";
export { sqlite } from "./sinks/sqlite.ts";
export { stdout } from "./sinks/stdout.ts";
export { defineStream } from "./validate/stream.ts";
export type { ReadingOf, StreamDefinition } from "./validate/stream.ts";
