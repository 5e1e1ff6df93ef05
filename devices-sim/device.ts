// One simulated device: a real MQTT.js client with an identity, a sensor and a rhythm of its own.

import { MqttClient, type IClientOptions } from "mqtt";
import type { Dial } from "./connection/dialer.ts";
import { toFailure, type Refused } from "./connection/failure.ts";
import type { Identity } from "./connection/identities.ts";
import { ClientLink } from "./faults/client-link.ts";
import type { DeviceFaults } from "./faults/device-faults.ts";
import type { DeviceLedger } from "./ledger/writer.ts";
import type { SimOptions } from "./options.ts";
import { Outbox } from "./outbox.ts";
import type { Encoder } from "./payloads/payload.ts";
import type { Sensor } from "./profiles/profile.ts";
import type { Random } from "./random.ts";
import type { Phase } from "./scenarios/scenario.ts";
import type { Rhythm } from "./rhythm.ts";
import type { Schedule } from "./schedule.ts";
import { hex, type Tally } from "./tally.ts";

export interface DeviceParts {
  readonly identity: Identity;
  readonly dial: Dial;
  readonly options: SimOptions;
  readonly sensor: Sensor;
  readonly rhythm: Rhythm;
  readonly encoder: Encoder;
  /** What goes wrong on purpose. */
  readonly faults: DeviceFaults;
  /** What its broker says when it is gone without a DISCONNECT. */
  readonly will: { readonly topic: string; readonly payload: string } | undefined;
  /** For the delays of reconnects, which are to leave the rhythm alone. */
  readonly reconnectRandom: Random;
  readonly schedule: Schedule;
  readonly tally: Tally;
  readonly ledger: DeviceLedger | undefined;
  readonly events: DeviceEvents;
}

interface DeviceEvents {
  /** A CONNACK accepted the device; again after each reconnect. */
  connected(): void;
  /** Broker and device do not accept each other; the device does not try again. */
  refused(what: Refused, message: string): void;
  /** The device will send no further message of its own accord. Called once. */
  done(): void;
  /** A message left the flight. */
  settled(): void;
}

/** How long a DISCONNECT may take before the socket is destroyed. */
const GOODBYE_MS = 1000;
/** Messages that a device keeps while it is away: as small devices do. */
const MOST_KEPT = 1000;

/** In place of the logger that MQTT.js makes for each client: that is 1 kB of 13 on the heap. */
const silent = (): void => {};

/**
 * `seq` counts the device's well-formed readings from 1: one that is skipped or spoilt takes no number, so in the stored
 * data of a device a gap is a lost message. A spoilt message carries the number that the next good one will have.
 */
export class Device {
  readonly #parts: DeviceParts;
  readonly #outbox: Outbox;
  #client: MqttClient | undefined;
  #link: ClientLink | undefined;
  #history: "untried" | "failing" | "connected" = "untried";
  #online = false;
  #stopped = false;
  #done = false;
  /** The connection has told an error. */
  #hasFailed = false;
  /** `count` is reached, and the outbox may have something yet. */
  #isLast = false;
  #seq = 0;
  #sent = 0;
  /** How many messages the last reading took. */
  #perReading = 1;
  #maxInFlight: number;

  constructor(parts: DeviceParts) {
    this.#parts = parts;
    this.#maxInFlight = parts.options.maxInFlight;
    const { tally, ledger, events } = parts;
    const onSettled = (): void => {
      this.#drain();
      events.settled();
    };
    this.#outbox = new Outbox({ qos: parts.options.qos, tally, ledger, onSettled });
  }

  /** Opens the connection and keeps it open; messages start with the first CONNACK. */
  connect(): void {
    if (this.#stopped) return;
    const { options, identity, dial, schedule, tally } = this.#parts;
    const { device: clientId, username, password } = identity;
    const client = new MqttClient(dial, {
      clientId,
      protocolId: "MQTT",
      protocolVersion: options.protocolVersion,
      clean: options.clean,
      keepalive: options.keepaliveSeconds,
      connectTimeout: options.connectTimeoutMs,
      reconnectPeriod: this.#reconnectMs(),
      reconnectOnConnackError: true,
      log: silent,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...this.#will(),
    });
    const onSurprise = (text: string): void => tally.error("fault", `${clientId}: ${text}`);
    this.#link = new ClientLink({ identity, dial, client, options, schedule, onSurprise });
    this.#listen(client);
    this.#parts.ledger?.watch(client);
    client.on("connect", ({ properties }) => this.#onConnect(properties?.receiveMaximum));
    client.on("close", () => this.#onClose());
    client.on("error", (error) => this.#onError(error));
    client.on("disconnect", ({ reasonCode = 0 }) => {
      this.#parts.tally.error(`disconnect ${hex(reasonCode)}`, "the broker sent DISCONNECT");
    });
    this.#client = client;
  }

  /** Another phase begins; `number` counts them, `startMs` is on the schedule's clock. */
  enter(phase: Phase, number: number, startMs: number): void {
    if (this.#stopped) return;
    this.#parts.faults.enter(phase, number, startMs, () => (this.#online && !this.#stopped ? this.#link : undefined));
  }

  /** Sends nothing more; acknowledgements still count. */
  stop(): void {
    this.#stopped = true;
    this.#parts.faults.leave();
    this.#parts.tally.skipped(this.#outbox.clear());
  }

  /** Sends DISCONNECT and closes the connection; without one there is nothing to wait for. Never fails. */
  async close(): Promise<void> {
    this.stop();
    const client = this.#client;
    if (client === undefined) return;
    const { will } = client.options;
    const isAnnounced = this.#parts.encoder.session !== undefined && this.#outbox.inFlight === 0;
    if (this.#online && isAnnounced && will !== undefined) client.publish(will.topic, will.payload);
    const timer = setTimeout(() => client.stream.destroy(), GOODBYE_MS);
    await new Promise<void>((resolve) => {
      // Forced while messages are in flight: MQTT.js would wait for their acknowledgements for ever.
      client.end(!this.#online || this.#outbox.inFlight > 0, () => resolve());
    });
    clearTimeout(timer);
  }

  #onConnect(receiveMaximum: number | undefined): void {
    const { schedule, rhythm, tally, events, options } = this.#parts;
    const first = this.#history !== "connected";
    tally.connected(this.#history);
    this.#history = "connected";
    this.#online = true;
    // MQTT.js does not heed the broker's Receive Maximum [MQTT-3.3.4-7].
    this.#maxInFlight = Math.min(options.maxInFlight, receiveMaximum ?? options.maxInFlight);
    events.connected();
    this.#birth();
    this.#drain();
    if (first) schedule.at(schedule.now() + rhythm.firstMs(), (dueMs) => this.#tick(dueMs));
  }

  #onClose(): void {
    const { tally } = this.#parts;
    const isProvoked = this.#link?.takeProvoked() ?? false;
    if (this.#history === "untried") {
      this.#history = "failing";
      tally.failing();
    }
    if (this.#online) {
      this.#online = false;
      tally.disconnected();
      if (!this.#stopped && !isProvoked)
        tally.error("connection lost", `${this.#parts.identity.device} lost its connection`);
    } else if (!this.#hasFailed && !isProvoked && !this.#stopped) {
      tally.error("no CONNACK", "the broker closed the connection before it answered");
    }
    this.#hasFailed = false;
    // MQTT.js has just armed its timer with the old period: this one is for the next time.
    if (this.#client === undefined) return;
    this.#client.options.reconnectPeriod = this.#reconnectMs();
    // Its next CONNECT has what its options have by then.
    Object.assign(this.#client.options, this.#will());
  }

  #onError(error: Error): void {
    const { tally, events, identity } = this.#parts;
    const { kind, text, refused } = toFailure(error);
    tally.error(kind, text);
    this.#hasFailed = true;
    if (refused === undefined) return;
    this.#client?.end(true);
    events.refused(refused, `${identity.device}: ${text}`);
    this.#finish();
  }

  #tick(dueMs: number): number | undefined {
    if (this.#stopped) return undefined;
    const { options, tally, schedule, faults, rhythm } = this.#parts;
    if (this.#hasRoom()) this.#measure();
    else tally.skipped(1);
    if (options.count !== undefined && this.#sent >= options.count) {
      this.#isLast = true;
      this.#outbox.release();
      this.#drain();
      return undefined;
    }
    const { waitMs, missed } = rhythm.next(schedule.now() - dueMs, faults.rate);
    tally.skipped(missed);
    return dueMs + waitMs;
  }

  /** A reading is sent as a whole or not at all; a device that is away keeps it, and then it waits behind what was kept. */
  #hasRoom(): boolean {
    const { waiting, inFlight } = this.#outbox;
    if (this.#link?.isAway === true || waiting > 0) return waiting < MOST_KEPT;
    return this.#online && (inFlight === 0 || inFlight + this.#perReading <= this.#maxInFlight);
  }

  #measure(): void {
    const { encoder, sensor, faults, rhythm } = this.#parts;
    const nowMs = rhythm.now();
    const suffers = faults.drawMessage();
    const reading = { ts: faults.toDeviceTime(nowMs), seq: this.#seq + 1, metrics: sensor.read(nowMs) };
    const spoiler = suffers?.fault.kind === "payload" ? suffers.fault : undefined;
    const messages = encoder.encode(reading);
    if (spoiler === undefined) this.#seq += 1;
    this.#sent += 1;
    this.#perReading = messages.length;
    this.#outbox.add(
      messages.map((each) => ({
        message: spoiler?.spoil(each, reading, faults.spoiling) ?? each,
        seq: reading.seq,
        suffers,
      })),
    );
    this.#drain();
  }

  /** Sends what may be sent now. */
  #drain(): void {
    const [client, link] = [this.#client, this.#link];
    if (client === undefined || link === undefined) return;
    if (this.#online && !link.isAway) this.#outbox.send(client, link, this.#maxInFlight);
    if (this.#isLast && this.#outbox.waiting === 0) this.#finish();
  }

  /** Of a firmware that announces itself: who subscribes may ask it to do so again. */
  #listen(client: MqttClient): void {
    const { session } = this.#parts.encoder;
    if (session === undefined) return;
    // MQTT.js renews the subscription after a reconnect.
    client.once("connect", () => client.subscribe(session.commands, { qos: 1 }));
    client.on("message", (_topic, payload) => {
      if (session.isRebirth(payload)) this.#birth();
    });
  }

  /** For the next connection. */
  #will(): Pick<IClientOptions, "will"> {
    const will = this.#parts.encoder.session?.will() ?? this.#parts.will;
    if (will === undefined) return {};
    return { will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1, retain: false } };
  }

  /** Before any data of a connection; it is no reading and is not counted. */
  #birth(): void {
    const { encoder, sensor, rhythm } = this.#parts;
    if (encoder.session === undefined || this.#stopped) return;
    const ts = rhythm.now();
    for (const { topic, payload } of encoder.session.birth({ ts, seq: this.#seq, metrics: sensor.read(ts) })) {
      this.#client?.publish(topic, payload);
    }
  }

  #finish(): void {
    if (this.#done) return;
    this.#done = true;
    this.stop();
    this.#parts.events.done();
  }

  /** Half to one and a half of the period, so that a fleet does not come back as one. */
  #reconnectMs(): number {
    return Math.round(this.#parts.options.reconnectMs * (0.5 + this.#parts.reconnectRandom()));
  }
}
