// One timer for all devices of a thread: a binary heap of due times. 10,000 intervals would be 10,000 timer objects and
// would fire in the order that they were made; here the devices stay staggered and an overload is seen as lateness.

/**
 * Runs when its time has come. `dueMs` is when it should have run (monotonic milliseconds), so that a rate can be kept
 * although timers are late. Returns when to run again, or undefined when it is done.
 */
export type Task = (dueMs: number) => number | undefined;

interface Entry {
  readonly dueMs: number;
  readonly task: Task;
}

/** How long tasks may run in one go before sockets and messages get their turn. */
const TURN_MS = 10;

export class Schedule {
  #heap: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #wakeMs = Number.POSITIVE_INFINITY;
  #closed = false;

  /** Tasks that wait for their time. */
  get size(): number {
    return this.#heap.length;
  }

  /** The clock of the schedule: monotonic milliseconds. */
  now(): number {
    return performance.now();
  }

  /** Runs the task at `dueMs`, or as soon as possible when that is past. */
  at(dueMs: number, task: Task): void {
    if (this.#closed) return;
    push(this.#heap, { dueMs, task });
    this.#arm();
  }

  /** Forgets all tasks; nothing runs after it. */
  close(): void {
    this.#closed = true;
    this.#heap = [];
    this.#disarm();
  }

  #arm(): void {
    const first = this.#heap[0];
    if (first === undefined || this.#immediate !== undefined || first.dueMs >= this.#wakeMs) return;
    clearTimeout(this.#timer);
    this.#wakeMs = first.dueMs;
    this.#timer = setTimeout(() => this.#turn(), Math.max(0, Math.ceil(first.dueMs - this.now())));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    this.#immediate = undefined;
    this.#wakeMs = Number.POSITIVE_INFINITY;
  }

  #turn(): void {
    this.#disarm();
    const startedMs = this.now();
    for (let first = this.#heap[0]; first !== undefined; first = this.#heap[0]) {
      const nowMs = this.now();
      if (first.dueMs > nowMs) break;
      if (nowMs - startedMs > TURN_MS) {
        this.#immediate = setImmediate(() => this.#turn());
        return;
      }
      pop(this.#heap);
      const nextMs = first.task(first.dueMs);
      if (nextMs !== undefined && !this.#closed) push(this.#heap, { dueMs: nextMs, task: first.task });
    }
    this.#arm();
  }
}

function push(heap: Entry[], entry: Entry): void {
  let at = heap.length;
  heap.push(entry);
  while (at > 0) {
    const parentAt = (at - 1) >> 1;
    const parent = heap[parentAt];
    if (parent === undefined || parent.dueMs <= entry.dueMs) break;
    heap[at] = parent;
    at = parentAt;
  }
  heap[at] = entry;
}

function pop(heap: Entry[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let childAt = 2 * at + 1;
    let child = heap[childAt];
    const right = heap[childAt + 1];
    if (right !== undefined && child !== undefined && right.dueMs < child.dueMs) {
      childAt += 1;
      child = right;
    }
    if (child === undefined || child.dueMs >= last.dueMs) break;
    heap[at] = child;
    at = childAt;
  }
  heap[at] = last;
}
