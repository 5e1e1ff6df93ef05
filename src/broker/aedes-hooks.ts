// What Aedes asks the gateway: who may connect, and what may be published.

import type { AedesOptions, Client } from "aedes";
import { toError } from "../errors.ts";
import type { EventBus } from "../events.ts";
import type { Admission } from "./admission.ts";
import type { Authenticate } from "./authenticate.ts";
import { isReservedTopic } from "./authorize.ts";
import type { Connection } from "./connection.ts";
import { reasonCode } from "./frames.ts";
import type { Limits } from "./limits.ts";
import type { Sessions } from "./sessions.ts";

interface Hooked {
  readonly options: { readonly authenticate: Authenticate; readonly limits: Limits; readonly events: EventBus };
  readonly sessions: Sessions;
  readonly admission: Admission;
  readonly connectionOf: (client: Client | null) => Connection | undefined;
}

/** Why a client is not let in; `told`: what it is told when that is less. */
interface Refusal {
  readonly reason: string;
  readonly code: number;
  readonly told?: string;
}

type Hooks = Required<Pick<AedesOptions, "preConnect" | "authenticate" | "authorizePublish" | "authorizeForward">>;

/** What Aedes asks: who may connect and publish. */
export function createHooks({ options, sessions, admission, connectionOf }: Hooked): Hooks {
  const admit = createAdmit({ options, sessions, admission, connectionOf });
  return {
    preConnect(client, packet, done) {
      connectionOf(client)?.outgoing?.prepare(packet);
      done(null, true);
    },
    authenticate(client, username, password, done) {
      const refuse = ({ reason, code, told = reason }: Refusal): void => {
        connectionOf(client)?.refuse(told, code);
        done(Object.assign(new Error(reason), { returnCode: NOT_AUTHORIZED }), false);
      };
      admit(client, username, password)
        .then((refusal) => (refusal === undefined ? done(null, true) : refuse(refusal)))
        .catch((cause: unknown) => {
          const told = "credentials cannot be checked now";
          refuse({ reason: toError(cause).message, code: reasonCode.serverUnavailable, told });
        });
    },
    // Telemetry and reserved topics from sockets end in connection.ts, wills in wills.ts.
    authorizePublish(client, packet, done) {
      if (isReservedTopic(packet.topic)) {
        done(new Error(`the topic ${packet.topic} is reserved`));
        return;
      }
      // For No Local: Aedes gives a message its publisher only after the queues have it.
      done(client === null ? null : (Object.assign(packet, { clientId: client.id }), null));
    },
    // QoS 0 goes out through fan-out.ts, QoS 1 and 2 from the session's queue: nothing is left for Aedes to deliver.
    authorizeForward: () => null,
  };
}

type Admit = (
  client: Client,
  username: string | undefined,
  password: Buffer | undefined,
) => Promise<Refusal | undefined>;

/** Authenticates, and gives the client its id and its session. */
function createAdmit({ options, sessions, admission, connectionOf }: Hooked): Admit {
  const { limits, events } = options;
  const { badUserNameOrPassword, notAuthorized, quotaExceeded, unspecifiedError } = reasonCode;
  const hasEnded: Refusal = { reason: "the connection has ended", code: unspecifiedError };
  return async (client, username, password) => {
    const result = await options.authenticate({ clientId: client.id, username, password });
    if (result.kind === "refused") {
      return { reason: result.reason, code: username === undefined ? notAuthorized : badUserNameOrPassword };
    }
    const connection = connectionOf(client);
    if (connection?.outgoing === undefined) return hasEnded;
    if (connection.outgoing.lasts && sessions.isOneTooMany(client.id)) {
      events.emit("limited", "sessions");
      return { reason: `more than ${limits.sessions} sessions`, code: quotaExceeded };
    }
    admission.enter(client.id, connection);
    connection.admit(result.deviceId);
    return undefined;
  };
}

/** For Aedes' own CONNACK, which the connection replaces. */
const NOT_AUTHORIZED = 5;
