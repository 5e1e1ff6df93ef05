// What a gateway has said of its sinks, over all its lives.

/** What it says of a sink or another reader of the journal, since it started. */
export interface SinkFigures {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly position: number;
  readonly lagRecords: number;
  readonly delivered: number;
  readonly parked: number;
  readonly passed: number;
  readonly expired: number;
  readonly lastError?: string;
}

/** Up to the last look. */
export interface Account {
  /** Of all lives. */
  readonly parked: number;
  readonly expired: number;
  /** Records of the present life that the cursor has passed, and that are counted as nothing. */
  readonly unexplained: number;
}

export interface Accounts {
  take(sinks: readonly SinkFigures[]): void;
  /** The gateway counts from 0 again. */
  beginLife(): void;
  of(sink: string): Account;
}

interface Life {
  /** Of all lives before. */
  readonly parkedBefore: number;
  readonly expiredBefore: number;
  /** Position less all that is counted: it stays the same as long as nothing is passed unseen. */
  readonly base: number;
}

export function createAccounts(): Accounts {
  const lives = new Map<string, Life>();
  const accounts = new Map<string, Account>();
  const of = (sink: string): Account => accounts.get(sink) ?? { parked: 0, expired: 0, unexplained: 0 };
  return {
    take(sinks) {
      for (const { name, position, delivered, parked, passed, expired } of sinks) {
        const base = position - delivered - parked - passed - expired;
        const before = of(name);
        const life = lives.get(name) ?? { parkedBefore: before.parked, expiredBefore: before.expired, base };
        lives.set(name, life);
        accounts.set(name, {
          parked: life.parkedBefore + parked,
          expired: life.expiredBefore + expired,
          unexplained: Math.abs(base - life.base),
        });
      }
    },
    beginLife: () => lives.clear(),
    of,
  };
}
