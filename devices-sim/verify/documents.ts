// Readings as JSON documents: the lines of files and of standard output, and the messages of NATS.
//
//   {"gateway":"…","offset":7,"stream":"climate","device":"d1","topic":"…","time":…,"receivedAt":…,"data":{…}}

import type { Row } from "./row.ts";

interface Document {
  readonly gateway: string;
  readonly offset: number;
  readonly stream: string;
  readonly device: string;
  readonly receivedAt: number;
  readonly data: unknown;
}

/** Undefined: it is no document. The streams of a gateway may be in different files, so each is a lane. */
export function parseDocument(text: string): Row | undefined {
  try {
    const { gateway, offset, stream, device, receivedAt, data } = JSON.parse(text) as Partial<Document>;
    if (gateway === undefined || offset === undefined || device === undefined || receivedAt === undefined)
      return undefined;
    return { lane: `${gateway} ${stream}`, offset, device, receivedAt, data };
  } catch {
    return undefined;
  }
}
