// What happens when: faults spread evenly over a run. A seed repeats them.

import { createRandom } from "../../devices-sim/random.ts";

export type ChaosEvent = ServerEvent | KillGateway | FillDisk | FreezeSubscriber | ReconnectStorm;

interface Timed {
  /** Since the devices have come. */
  readonly atMs: number;
}

interface ServerEvent extends Timed {
  /** kill-server: SIGKILL, and another start. freeze-server: SIGSTOP, and SIGCONT. */
  readonly kind: "kill-server" | "freeze-server";
  /** The sink that it is the server of. */
  readonly sink: string;
  readonly forMs: number;
}

interface KillGateway extends Timed {
  readonly kind: "kill-gateway";
  readonly forMs: number;
}

interface FillDisk extends Timed {
  readonly kind: "fill-disk";
  /** From when the gateway says that it holds. */
  readonly forMs: number;
}

/** For the rest of the time. */
interface FreezeSubscriber extends Timed {
  readonly kind: "freeze-subscriber";
}

/** The simulator does it; see simulator.ts. */
interface ReconnectStorm extends Timed {
  readonly kind: "reconnect-storm";
}

export interface ScriptOptions {
  readonly seed: number;
  /** How long the devices send. */
  readonly durationMs: number;
  readonly servers: readonly { readonly sink: string; readonly canBeKilled: boolean }[];
  readonly hasDisk: boolean;
}

/** All devices have come. */
const FIRST_MS = 4_000;
/** What was killed last is back, and what waits in the devices is sent, before they end. */
const REST_MS = 10_000;
/** In a long run something happens so often. */
const EVERY_MS = 6_000;
/** In a short one, in which everything happens once, at least so far apart. */
export const SHORTEST_EVERY_MS = 2_000;

/** What a minute of chaos needs at least to have everything in it once. */
export const shortestMs = (options: Pick<ScriptOptions, "servers" | "hasDisk">): number =>
  FIRST_MS + REST_MS + SHORTEST_EVERY_MS * (createRound(options, () => 0.5).length + 1);

/** In the order of their times. The subscriber comes first; then as many rounds as there is time for, one at least, of everything else. */
export function createScript(options: ScriptOptions): readonly ChaosEvent[] {
  const random = createRandom(options.seed);
  const spaceMs = options.durationMs - FIRST_MS - REST_MS;
  const round = (): readonly Untimed[] => shuffle(createRound(options, random), random);
  const events: Untimed[] = [{ kind: "freeze-subscriber" }, ...round()];
  for (let next = round(); (events.length + next.length) * EVERY_MS <= spaceMs; next = round()) events.push(...next);
  return events.map((event, at) => ({ ...event, atMs: Math.round(FIRST_MS + (spaceMs * at) / events.length) }));
}

type WithoutTime<Event> = Event extends ChaosEvent ? Omit<Event, "atMs"> : never;
type Untimed = WithoutTime<ChaosEvent>;

/** Each server is killed; one that cannot be is frozen, and so is one of the others. */
function createRound(
  { servers, hasDisk }: Pick<ScriptOptions, "servers" | "hasDisk">,
  random: () => number,
): readonly Untimed[] {
  const between = (leastMs: number, mostMs: number): number => Math.round(leastMs + random() * (mostMs - leastMs));
  const freeze = (sink: string): Untimed => ({ kind: "freeze-server", sink, forMs: between(1_000, 7_000) });
  const killed = servers.filter(({ canBeKilled }) => canBeKilled);
  const frozen = servers.filter(({ canBeKilled }) => !canBeKilled);
  const other = killed[Math.floor(random() * killed.length)];
  return [
    { kind: "kill-gateway", forMs: between(0, 1_500) },
    ...killed.map(({ sink }): Untimed => ({ kind: "kill-server", sink, forMs: between(200, 3_000) })),
    ...[...frozen, ...(other === undefined ? [] : [other])].map(({ sink }) => freeze(sink)),
    ...(hasDisk ? [{ kind: "fill-disk", forMs: between(500, 3_000) } as const] : []),
    { kind: "reconnect-storm" },
  ];
}

function shuffle<Item>(items: readonly Item[], random: () => number): readonly Item[] {
  return items
    .map((item) => ({ item, place: random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ item }) => item);
}
