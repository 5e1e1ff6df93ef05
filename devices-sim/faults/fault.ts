// What a fault is: something that goes wrong on purpose, for a share of the messages or of the devices.

import type { Duplex } from "node:stream";
import type { Identity } from "../connection/identities.ts";
import type { SimOptions } from "../options.ts";
import type { Message } from "../payloads/payload.ts";
import type { Random } from "../random.ts";
import type { Telemetry } from "../telemetry.ts";

export type Fault = PayloadFault | DeliveryFault | ClockFault | ConnectionFault;

/**
 * What becomes of a spoilt message. undecodable, invalid, time: a Sluice whose schema is that of the profile rejects it for this
 * reason. ignored: it is acknowledged, and nobody has it. too-large: the connection ends, and it is never acknowledged.
 */
export type Outcome = "undecodable" | "invalid" | "time" | "ignored" | "too-large";

/** Spoils a share of the messages. */
export interface PayloadFault {
  readonly kind: "payload";
  /** For people: what happens. */
  readonly about: string;
  readonly outcome: Outcome;
  /** It does not matter in which shape the payload was. */
  readonly anyShape?: true;
  spoil(message: Message, reading: Telemetry, random: Random): Message;
}

/** Delivers a share of the messages otherwise than once and in order; they are good ones. */
export interface DeliveryFault {
  readonly kind: "delivery";
  readonly about: string;
  /**
   * twice: two PUBLISH packets of their own. late: behind the message that follows. unheard: the device misses its
   * acknowledgement, loses the connection and sends it again with DUP.
   */
  readonly how: "twice" | "late" | "unheard";
}

/** Falsifies the clock of a share of the devices; their messages are good ones. */
export interface ClockFault {
  readonly kind: "clock";
  readonly about: string;
  /** The clock of one device: from the true Unix time in milliseconds to what the device takes for it. */
  open(random: Random): (nowMs: number) => number;
}

/** Happens again and again to a share of the devices. */
export interface ConnectionFault {
  readonly kind: "connection";
  readonly about: string;
  /** Mean time between its end, or the beginning of a phase, and the next time. */
  readonly everyMs: number;
  /** How long it lasts; 0: an instant. */
  readonly forMs: number;
  /** It happens to all devices at the same instant, else each has its own times. */
  readonly together?: true;
  /** The device connects with a will. */
  readonly needsWill?: true;
  /** The broker must speak TLS. */
  readonly needsTls?: true;
  /** Called for a device that is connected. What it returns ends it, and is called once unless `forMs` is 0. */
  begin(link: Link, random: Random): End;
}

/** `isEarly`: the run or the phase is over before the fault has lasted as long as it should. */
export type End = (isEarly: boolean) => void;

/** The connection of one device, in the hands of a fault. */
export interface Link {
  readonly identity: Identity;
  readonly options: SimOptions;
  /** Closes the connection without DISCONNECT; the device stays away, and keeps what it measures. */
  leave(): void;
  /** Connects at once, and sends what was kept. */
  comeBack(): void;
  /** Ends the connection with a TCP reset; the device connects again after its reconnect delay. */
  reset(): void;
  /** Another connection to the broker. */
  openStream(): Duplex;
  /** Runs once, unless the run is over before. */
  after(delayMs: number, run: () => void): void;
  /** The broker did not do what it must. */
  surprise(text: string): void;
}

/** One fault of a run. Plain data: it crosses to the worker threads. */
export interface FaultPlan<Name extends string = string> {
  readonly name: Name;
  /** 0 to 1: of the messages, or of the devices for faults of clocks and connections. */
  readonly share: number;
  /** Faults of connections: instead of their own. */
  readonly everyMs?: number | undefined;
  readonly forMs?: number | undefined;
}
