// What a connection that failed says of it.

import { toError } from "../errors.ts";

/** The message; when several addresses of a host were tried, that of each. */
export function toReason(cause: unknown): string {
  const { message } = toError(cause);
  if (!(cause instanceof AggregateError)) return message;
  return cause.errors.map((error: unknown) => toError(error).message).join(", ");
}
