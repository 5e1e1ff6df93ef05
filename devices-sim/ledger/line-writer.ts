// Appends lines of JSON to a file in blocks. A block is in the system's hands when it is written, so that a simulator that is
// killed loses at most FLUSH_MS of lines; only a power cut takes more.

import { closeSync, fsyncSync, openSync, writeFileSync } from "node:fs";

const FLUSH_MS = 100;
const BLOCK_CHARACTERS = 64 * 1024;

/** Everything throws when the file cannot be written: a run without its ledger proves nothing. */
export class LineWriter<Line> implements Disposable {
  readonly #file: number;
  readonly #timer: NodeJS.Timeout;
  #block = "";

  /** Makes the file, which must not exist. */
  constructor(path: string) {
    this.#file = openSync(path, "wx");
    this.#timer = setInterval(() => this.#flush(), FLUSH_MS);
  }

  add(line: Line): void {
    this.#block += `${JSON.stringify(line)}\n`;
    if (this.#block.length >= BLOCK_CHARACTERS) this.#flush();
  }

  /** Everything is on disk then. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#flush();
    fsyncSync(this.#file);
    closeSync(this.#file);
  }

  #flush(): void {
    if (this.#block === "") return;
    writeFileSync(this.#file, this.#block);
    this.#block = "";
  }
}
