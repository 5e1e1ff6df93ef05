// A small disk for the gateway's data, so that it can be full.

import { join } from "node:path";
import { type Disk, openLoopDisk } from "../e2e/disks.ts";
import { findMissing } from "../e2e/tools.ts";

const MIB = 2 ** 20;
/** Journal, and what SQLite and the files need beside their rows. */
const FIXED_BYTES = 256 * MIB;
/** Of a message in all sinks that are files. */
const MESSAGE_BYTES = 768;

/** A text: why there is none. It holds so many messages. */
export async function openSmallDisk(dir: string, messages: number): Promise<Disk | string> {
  const missing = findMissing("mount", "mkfs.ext4");
  if (missing !== undefined) return missing;
  const bytes = Math.ceil((FIXED_BYTES + messages * MESSAGE_BYTES) / MIB) * MIB;
  return await openLoopDisk(join(dir, "disk"), join(dir, "disk-image"), bytes);
}
