// Faults of the device's own connection: it goes away, and comes back.

import type { ConnectionFault } from "./fault.ts";

const nothing = (): void => {};

/** Store and forward: what was measured meanwhile comes in a burst, in its order. */
export const offline: ConnectionFault = {
  kind: "connection",
  about: "away for a while, then a burst of all that it kept",
  everyMs: 60_000,
  forMs: 30_000,
  begin(link) {
    link.leave();
    return () => link.comeBack();
  },
};

export const reset: ConnectionFault = {
  kind: "connection",
  about: "the connection ends with a TCP reset",
  everyMs: 30_000,
  forMs: 0,
  begin(link) {
    link.reset();
    return nothing;
  },
};

/** A link at the edge of its range. */
export const flapping: ConnectionFault = {
  kind: "connection",
  about: "connected and away again in turns of 0.1 to 1 s",
  everyMs: 30_000,
  forMs: 10_000,
  begin(link, random) {
    let isAway = false;
    let isOver = false;
    const turn = (): void => {
      if (isOver) return;
      if (isAway) link.comeBack();
      else link.leave();
      isAway = !isAway;
      link.after(100 + 900 * random(), turn);
    };
    turn();
    return () => {
      isOver = true;
      if (isAway) link.comeBack();
    };
  },
};

/** What a broker sees when an access point starts again. */
export const reconnectStorm: ConnectionFault = {
  kind: "connection",
  about: "all lose their connection at once and come back at once",
  everyMs: 30_000,
  forMs: 0,
  together: true,
  begin(link) {
    link.leave();
    link.comeBack();
    return nothing;
  },
};

/** The broker publishes the will because no DISCONNECT came [MQTT-3.1.2-8]. */
export const lastWill: ConnectionFault = {
  ...reset,
  about: "the device has a will (offline, on TOPIC/status), and dies",
  needsWill: true,
};
