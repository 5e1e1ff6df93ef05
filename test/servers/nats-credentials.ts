// What `nsc` makes: an operator, an account and users, as JWTs signed with NKeys, and the files of their credentials.

import { nkeys } from "@nats-io/transport-node";

export interface Trust {
  /** Lines of a server's configuration: who its operator is, and one account, with JetStream. */
  readonly lines: readonly string[];
  /** The text of a .creds file for a new user of the account, valid until `expires` (seconds since 1970). */
  issue(expires?: number): string;
}

type KeyPair = ReturnType<typeof nkeys.createUser>;

export function createTrust(): Trust {
  const [operator, account, system] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createAccount()];
  const unlimited = { subs: -1, data: -1, payload: -1 };
  const limits = { ...unlimited, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 };
  const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
  const known = [
    [system, sign(operator, system, { type: "account", limits })],
    [account, sign(operator, account, { type: "account", limits: { ...limits, ...storage } })],
  ] as const;
  return {
    lines: [
      `operator: ${sign(operator, operator, { type: "operator" })}`,
      "resolver: MEMORY",
      `resolver_preload: { ${known.map(([key, jwt]) => `${key.getPublicKey()}: ${jwt}`).join(", ")} }`,
      `system_account: ${system.getPublicKey()}`,
    ],
    issue(expires) {
      const user = nkeys.createUser();
      const jwt = sign(account, user, { type: "user", pub: {}, sub: {}, ...unlimited }, expires);
      const seed = Buffer.from(user.getSeed()).toString();
      return `${block("NATS USER JWT", jwt)}\n${block("USER NKEY SEED", seed)}`;
    },
  };
}

const block = (title: string, text: string): string => `-----BEGIN ${title}-----\n${text}\n------END ${title}------\n`;
const toPart = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");

/** https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt: claims of version 2. */
function sign(issuer: KeyPair, subject: KeyPair, claims: Record<string, unknown>, expires?: number): string {
  const sub = subject.getPublicKey();
  const iat = Math.floor(Date.now() / 1_000);
  const payload = {
    jti: `${sub}-${iat}`,
    iat,
    iss: issuer.getPublicKey(),
    sub,
    name: sub,
    ...(expires !== undefined && { exp: expires }),
    nats: { ...claims, version: 2 },
  };
  const text = `${toPart({ typ: "JWT", alg: "ed25519-nkey" })}.${toPart(payload)}`;
  return `${text}.${Buffer.from(issuer.sign(Buffer.from(text))).toString("base64url")}`;
}
