// Messages of devices that number theirs, as a destination has them: is one missing, twice, or behind a later one?

export interface Order {
  /** Each message for the first time. */
  readonly found: number;
  /** Again. */
  readonly repeated: number;
  /** Numbers that were passed over: lost, or out of order. */
  readonly missing: number;
}

export interface OrderCheck {
  /** In the order of the destination. */
  see(device: string, seq: number): void;
  readonly order: Order;
}

/** Every device numbers its messages upwards, one by one. */
export function createOrderCheck(): OrderCheck {
  const last = new Map<string, number>();
  const order = { found: 0, repeated: 0, missing: 0 };
  return {
    see(device, seq) {
      const before = last.get(device);
      if (before !== undefined && seq <= before) {
        order.repeated += 1;
        return;
      }
      order.found += 1;
      if (before !== undefined) order.missing += seq - before - 1;
      last.set(device, seq);
    },
    order,
  };
}
