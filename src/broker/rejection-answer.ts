// What a device is told of a message that was not taken, in MQTT 5: the reason code of PUBACK or PUBREC, a sentence, and the
// places in the payload that are wrong.

import { unreachable } from "../errors.ts";
import type { Issue, Rejection, RejectionReason } from "../reading.ts";
import { reasonCode } from "./frames.ts";
import type { Told } from "./packet-writer.ts";

/** The rest of the issues is in the journal. Devices are small, and what is told waits in memory for the commit. */
const toldPaths = 4;
const toldLength = 120;

export function codeOf(reason: RejectionReason): number {
  switch (reason) {
    case "identity":
      return reasonCode.notAuthorized;
    case "no-stream":
      return reasonCode.topicNameInvalid;
    case "undecodable":
    case "invalid":
    case "time":
      return reasonCode.payloadFormatInvalid;
    default:
      return unreachable(reason);
  }
}

/** User property `reason` once, and `path` for each of the first places that are wrong. */
export function tellRejection({ reason, issues }: Rejection): Told {
  const [first, ...others] = issues;
  const rest = others.length === 0 ? "" : `, and ${others.length} more`;
  const sentence = first === undefined ? "" : `: ${toSentence(first)}${rest}`;
  const paths = [...new Set(issues.map(({ path }) => path))].filter((path) => path !== "").slice(0, toldPaths);
  return {
    reason: `${reason}${sentence}`,
    user: [["reason", reason], ...paths.map((path) => ["path", shorten(path)] as const)],
  };
}

const toSentence = ({ path, message }: Issue): string =>
  shorten(message === "" || path === "" ? `${path}${message}` : `${path}: ${message}`);

const shorten = (text: string): string => (text.length <= toldLength ? text : `${text.slice(0, toldLength - 1)}…`);
