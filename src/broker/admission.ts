// One connection for each client id: the last one that was authenticated. The one before is ended, and the new one goes on
// when Aedes has let go of it.
//
// Left to Aedes, a new client is registered while the old one is still closing, whose end then strikes the new one from
// its list; and a client of MQTT 5 that does not read holds up the take-over for as long as its socket lives.

import { setImmediate as turn } from "node:timers/promises";

/** A connection, as far as another with its client id is concerned. */
export interface Holder {
  /** Ends it at once, with 0x8E to a client of MQTT 5 [MQTT-3.1.4-3]; its session is given back. */
  readonly giveWay: () => void;
  /** Resolves when Aedes has let go of it. */
  readonly gone: () => Promise<void>;
}

export class Admission {
  readonly #holders = new Map<string, Holder>();

  /** Resolves when the client id is the holder's alone. Whoever comes later may have taken it away again by then. */
  async enter(clientId: string, holder: Holder): Promise<void> {
    const before = this.#holders.get(clientId);
    this.#holders.set(clientId, holder);
    if (before === undefined || before === holder) return;
    before.giveWay();
    await turn(); // Aedes hears of it
    await before.gone();
  }

  holds(clientId: string, holder: Holder): boolean {
    return this.#holders.get(clientId) === holder;
  }

  leave(clientId: string, holder: Holder): void {
    if (this.holds(clientId, holder)) this.#holders.delete(clientId);
  }
}
