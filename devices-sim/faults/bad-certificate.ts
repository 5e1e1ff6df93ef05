// A client certificate that nobody has signed but its own key, made here: X.509 version 1 (RFC 5280 section 4.1), in DER (X.690).
//
//   Certificate ::= SEQUENCE { tbs, algorithm, signature BIT STRING }
//   tbs         ::= SEQUENCE { serial INTEGER, algorithm, issuer, validity, subject, public key }

import { generateKeyPairSync, sign } from "node:crypto";
import { connect } from "node:tls";
import type { ConnectionFault } from "./fault.ts";
import { openSecondClient, toConnect } from "./second-client.ts";

const tag = { integer: 0x02, bitString: 0x03, utf8String: 0x0c, utcTime: 0x17, sequence: 0x30, set: 0x31 };
/** Object identifiers with their tags. */
const ecdsaWithSha256 = Buffer.from("06082a8648ce3d040302", "hex");
const commonName = Buffer.from("0603550403", "hex");

function der(type: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head = length < 0x80 ? [type, length] : [type, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), content]);
}

/** Certificate and key as PEM; from 2020 to 2049. */
export function signItself(name: string): { readonly cert: string; readonly key: string } {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const algorithm = der(tag.sequence, ecdsaWithSha256);
  const named = der(tag.sequence, commonName, der(tag.utf8String, Buffer.from(name)));
  const subject = der(tag.sequence, der(tag.set, named));
  const [from, to] = ["200101000000Z", "491231235959Z"].map((time) => der(tag.utcTime, Buffer.from(time)));
  const validity = der(tag.sequence, ...(from && to ? [from, to] : []));
  const serial = der(tag.integer, Buffer.from([1]));
  const spki = publicKey.export({ type: "spki", format: "der" });
  const tbs = der(tag.sequence, serial, algorithm, subject, validity, subject, spki);
  const signature = der(tag.bitString, Buffer.from([0]), sign("sha256", tbs, privateKey));
  const certificate = der(tag.sequence, tbs, algorithm, signature);
  const lines = certificate.toString("base64").replaceAll(/.{64}/g, "$&\n");
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

/** For brokers that ask for the certificates of clients: such a one must not get a CONNACK. */
export const badCertificate: ConnectionFault = {
  kind: "connection",
  about: "a second client with a certificate that nobody has signed (over TLS)",
  everyMs: 30_000,
  forMs: 5_000,
  needsTls: true,
  begin(link) {
    const { host, port } = link.options;
    // Whether the server is the right one does not matter here, and the credentials stay at home.
    const stream = connect({ host, port, ...signItself(link.identity.device), rejectUnauthorized: false });
    const packet = { ...toConnect(link, `${link.identity.device}-stranger`) };
    delete packet.username;
    delete packet.password;
    const client = openSecondClient(
      link,
      {
        packet({ cmd, ...rest }) {
          const isAccepted = cmd === "connack" && "returnCode" in rest && rest.returnCode === 0;
          if (isAccepted) link.surprise("the broker accepted a certificate that nobody has signed");
        },
      },
      stream,
    );
    client.send(packet);
    return () => client.close();
  },
};
