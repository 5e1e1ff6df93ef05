// Who listens to a topic: found once, and kept until a subscription that matters changes.

import { Qlobber } from "qlobber";
import { filterSyntax, hasWildcard, isHidden } from "./filters.ts";
import { encodeTopic, type Shapes } from "./live-packet.ts";
import type { Taker } from "./takers.ts";
import { type LiveSubscription, type Target, toTargets } from "./target.ts";

/** The targets of all topics that the same filters match. */
interface Group {
  readonly key: string;
  readonly targets: readonly Target[];
}

/** The sessions, as far as an audience is concerned. */
export interface Keeper {
  readonly isDeserted: boolean;
  readonly takersOf: (topic: string) => readonly Taker[];
  onChange: (filter: string) => void;
}

interface Lifetime {
  isOver: boolean;
}

const nobody: Group = { key: "", targets: [] };

/** Who listens to one topic; shared by all that publish there. */
export class Audience {
  readonly topic: string;
  readonly group: Group;
  /** Who gets messages with QoS 1 or 2, connected or not. */
  readonly takers: readonly Taker[];
  readonly #lifetime: Lifetime;
  #isOutdated = false;
  #encodedTopic: Buffer | undefined;

  constructor(topic: string, group: Group, takers: readonly Taker[], lifetime: Lifetime) {
    this.topic = topic;
    this.group = group;
    this.takers = takers;
    this.#lifetime = lifetime;
  }

  /** False after a change of subscriptions: ask for the topic's audience again. */
  get isCurrent(): boolean {
    return !this.#isOutdated && !this.#lifetime.isOver;
  }

  /** Nobody, connected or not. */
  get isEmpty(): boolean {
    return this.group === nobody && this.takers.length === 0;
  }

  get targets(): readonly Target[] {
    return this.group.targets;
  }

  /** The topic as it stands in a PUBLISH. */
  get encodedTopic(): Buffer {
    this.#encodedTopic ??= encodeTopic(this.topic);
    return this.#encodedTopic;
  }

  outdate(): void {
    this.#isOutdated = true;
  }
}

/** Of a topic that was not looked up yet. */
export const unknownAudience = new Audience("", nobody, [], { isOver: true });

/** Beyond these the cache starts anew. A topic takes some 300 bytes. */
const MOST_TOPICS = 50_000;
const MOST_HELD = 100_000;

interface Filter {
  readonly text: string;
  /** In the order in which they came. */
  readonly subscriptions: Set<LiveSubscription>;
}

export class Audiences {
  readonly #keeper: Keeper;
  readonly #shapes: Shapes;
  readonly #filters = new Qlobber<Filter>(filterSyntax);
  readonly #byText = new Map<string, Filter>();
  // The cache: what is removed from the one is removed from the other.
  readonly #byTopic = new Map<string, Audience>();
  readonly #groups = new Map<string, Group>();
  /** Targets and takers in it. */
  #held = 0;
  #lifetime: Lifetime = { isOver: false };
  /** Of all topics while there is no subscription at all: it takes no place in the cache. */
  #silence: Audience | undefined;
  #size = 0;

  constructor(keeper: Keeper, shapes: Shapes) {
    this.#keeper = keeper;
    this.#shapes = shapes;
    keeper.onChange = (filter) => this.#outdate(filter);
  }

  /** Live subscriptions. */
  get size(): number {
    return this.#size;
  }

  add(subscription: LiveSubscription): void {
    const text = subscription.filter;
    let filter = this.#byText.get(text);
    if (filter === undefined) {
      filter = { text, subscriptions: new Set() };
      this.#byText.set(text, filter);
      this.#filters.add(text, filter);
    }
    filter.subscriptions.add(subscription);
    this.#size += 1;
    this.#outdate(text);
  }

  remove(subscription: LiveSubscription): void {
    const text = subscription.filter;
    const filter = this.#byText.get(text);
    if (filter?.subscriptions.delete(subscription) !== true) return;
    if (filter.subscriptions.size === 0) {
      this.#byText.delete(text);
      this.#filters.remove(text, filter);
    }
    this.#size -= 1;
    this.#outdate(text);
  }

  of(topic: string): Audience {
    const known = this.#byTopic.get(topic);
    if (known !== undefined) return known;
    if (this.#size === 0 && this.#keeper.isDeserted) {
      this.#silence ??= new Audience("", nobody, [], this.#lifetime);
      return this.#silence;
    }
    if (this.#byTopic.size >= MOST_TOPICS || this.#held >= MOST_HELD) this.#startAnew();
    const takers = this.#keeper.takersOf(topic);
    const audience = new Audience(topic, this.#groupOf(topic), takers, this.#lifetime);
    this.#held += takers.length;
    this.#byTopic.set(topic, audience);
    return audience;
  }

  #groupOf(topic: string): Group {
    if (this.#size === 0) return nobody;
    const filters = [...new Set(this.#filters.match(topic))].filter(({ text }) => !isHidden(topic, text));
    if (filters.length === 0) return nobody;
    const key = filters.map(({ text }) => text).join("\0");
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    const targets = toTargets(
      filters.flatMap(({ subscriptions }) => [...subscriptions]),
      this.#shapes,
    );
    const group = { key, targets };
    this.#groups.set(key, group);
    this.#held += targets.length;
    return group;
  }

  /** A filter without wildcards concerns one topic; which ones another concerns is not worth finding out. */
  #outdate(filter: string): void {
    if (hasWildcard(filter) || this.#silence !== undefined) {
      this.#startAnew();
      return;
    }
    const audience = this.#byTopic.get(filter);
    if (audience === undefined) return;
    audience.outdate();
    this.#byTopic.delete(filter);
    if (this.#groups.delete(audience.group.key)) this.#held -= audience.targets.length;
    this.#held -= audience.takers.length;
  }

  #startAnew(): void {
    if (this.#byTopic.size === 0 && this.#silence === undefined) return;
    this.#silence = undefined;
    this.#lifetime.isOver = true;
    this.#lifetime = { isOver: false };
    this.#byTopic.clear();
    this.#groups.clear();
    this.#held = 0;
  }
}
