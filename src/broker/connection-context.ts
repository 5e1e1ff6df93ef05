// What all connections of one broker share.

import type { Client } from "aedes";
import type { EventBus } from "../events.ts";
import type { Peer } from "../listener/listener.ts";
import type { Latency, Traffic } from "../telemetry.ts";
import type { Admission } from "./admission.ts";
import type { AedesStream } from "./aedes-stream.ts";
import type { Audience } from "./audience.ts";
import type { TelemetryTarget } from "./broker.ts";
import type { Connection } from "./connection.ts";
import type { WireLimits } from "./frames.ts";
import type { Limits } from "./limits.ts";
import type { Throttle } from "./rate-limit.ts";
import type { PublishView } from "./packet-check.ts";
import type { RetainedMessages } from "./retained.ts";
import type { Sessions } from "./sessions.ts";
import type { Wills } from "./wills.ts";

/** What all connections of a broker share. */
export interface ConnectionContext {
  readonly target: TelemetryTarget;
  readonly limits: Limits;
  readonly wireLimits: WireLimits;
  readonly events: EventBus;
  readonly traffic: Traffic;
  readonly puback: Latency;
  readonly connections: Set<Connection>;
  readonly admission: Admission;
  readonly sessions: Sessions;
  readonly retained: RetainedMessages;
  readonly wills: Wills;
  /** Connections that owe acknowledgements: looked at once per commit. */
  readonly owing: Set<Connection>;
  /** Called once for each connection when it is closed. */
  readonly departed: (peer: Peer) => void;
  /** Clients that are beyond their rate. */
  readonly throttle: Throttle;
  /** True from shutdown on: nothing is read any more. */
  readonly stopped: () => boolean;
  /** Starts an Aedes client on the stream. */
  readonly attach: (stream: AedesStream, connection: Connection) => Client;
  /** Who subscribes to the topic; ask again when it is not current any more. */
  readonly audienceOf: (topic: string) => Audience;
  /** Shows accepted telemetry to its subscribers, and keeps it if it is to be retained. */
  readonly show: (audience: Audience, shown: ShownMessage) => void;
}

/** A PUBLISH from `start` to `end` of `buffer`; good for the call only. */
export interface ShownMessage {
  readonly topic: string;
  readonly clientId: string;
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly view: PublishView;
}
