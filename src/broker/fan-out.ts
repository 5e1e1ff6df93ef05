// Delivery to live subscribers: the emitter that Aedes publishes through (its `mq` option).
//
// Aedes' own emitter runs at most 100 deliveries at a time and calls back when the slowest subscriber has taken the
// message, so one frozen subscriber stops live delivery for everybody. This one hands the message to each subscriber
// and calls back at once; how much may wait for a subscriber is bounded where it is written (`authorizeForward` refuses
// a connection whose queue is full). It also tells, without a lookup per message, whether anybody listens to a topic.

import type { AedesPublishPacket } from "aedes";
import { Qlobber } from "qlobber";

type Deliver = (packet: AedesPublishPacket, done: () => void) => void;

export interface FanOut {
  /** True when a live subscriber's filter matches the topic. */
  matches(topic: string): boolean;
  /** Live subscriptions. */
  readonly subscriptions: number;
  /** Changes whenever a subscription comes or goes: a `matches` answer is good for as long as it stays the same. */
  readonly version: number;
  // The part of mqemitter's interface that Aedes uses.
  readonly current: number;
  readonly concurrency: number;
  on(filter: string, deliver: Deliver, done?: () => void): FanOut;
  removeListener(filter: string, deliver: Deliver, done?: () => void): FanOut;
  emit(packet: AedesPublishPacket, done?: (error?: Error) => void): FanOut;
  close(done: () => void): void;
}

/** Aedes listens to three topics of its own. */
const INTERNAL_SUBSCRIPTIONS = 3;

const ignore = (): void => {};

/** `privatePrefix`: topics of Aedes' own housekeeping (`$SYS/<broker id>/`), which no client is shown. */
export function createFanOut(privatePrefix: string): FanOut {
  const filters = new Qlobber<Deliver>({
    separator: "/",
    wildcard_one: "+",
    wildcard_some: "#",
    match_empty_levels: true, // [MQTT-4.7.1-3]
  });
  let version = 0;
  let subscriptions = -INTERNAL_SUBSCRIPTIONS;
  let closed = false;
  const fanOut: FanOut = {
    current: 0,
    concurrency: 0,
    get version() {
      return version;
    },
    get subscriptions() {
      return Math.max(0, subscriptions);
    },
    // A filter that starts with a wildcard does not match $-topics [MQTT-4.7.2-1]; Aedes checks that on delivery.
    matches: (topic) => filters.match(topic).length > 0,
    on(filter, deliver, done) {
      version += 1;
      subscriptions += 1;
      filters.add(filter, deliver);
      if (done !== undefined) setImmediate(done);
      return fanOut;
    },
    removeListener(filter, deliver, done) {
      version += 1;
      subscriptions -= 1;
      filters.remove(filter, deliver);
      if (done !== undefined) setImmediate(done);
      return fanOut;
    },
    emit(packet, done = ignore) {
      if (closed) {
        done(new Error("the broker is closed"));
        return fanOut;
      }
      if (!packet.topic.startsWith(privatePrefix)) {
        for (const deliver of filters.match(packet.topic)) deliver(packet, ignore);
      }
      done();
      return fanOut;
    },
    close(done) {
      closed = true;
      setImmediate(done);
    },
  };
  return fanOut;
}
