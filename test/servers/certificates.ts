// Certificates for tests, made by openssl: an authority, a server for 127.0.0.1 and localhost, a client, and a stranger.

import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Paths of PEM files. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

export interface Certificates {
  /** The certificate of the authority that has signed `server`, `elsewhere`, `expired` and `client`. */
  readonly ca: string;
  /** For 127.0.0.1 and localhost. */
  readonly server: Certificate;
  /** For another host. */
  readonly elsewhere: Certificate;
  /** For 127.0.0.1, until yesterday. */
  readonly expired: Certificate;
  readonly client: Certificate;
  /** Signed by nobody else, for 127.0.0.1; as an authority it has signed nothing of these. */
  readonly stranger: Certificate;
  /** Another client's, in files of this name. */
  readonly issue: (name: string) => Promise<Certificate>;
}

/** Makes them in `dir`; takes half a second. */
export async function makeCertificates(dir: string): Promise<Certificates> {
  const place = (name: string): Certificate => ({ cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) });
  const [authority, stranger] = [place("authority"), place("stranger")];
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

  async function selfSign({ cert, key }: Certificate, name: string): Promise<void> {
    const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1"];
    await run("openssl", ["req", "-x509", ...newKey, ...subject, "-days", "2", "-keyout", key, "-out", cert]);
  }

  async function sign(name: string, alternative: string, days = 2): Promise<Certificate> {
    const { cert, key } = place(name);
    const [request, extensions] = [join(dir, `${name}.csr`), join(dir, `${name}.ext`)];
    await writeFile(extensions, `subjectAltName=${alternative}\n`);
    await run("openssl", ["req", ...newKey, "-subj", `/CN=${name}`, "-keyout", key, "-out", request]);
    const by = ["-CA", authority.cert, "-CAkey", authority.key, "-CAcreateserial", "-extfile", extensions];
    await run("openssl", ["x509", "-req", "-in", request, ...by, "-days", String(days), "-out", cert]);
    return { cert, key };
  }

  await Promise.all([selfSign(authority, "Test authority"), selfSign(stranger, "Stranger")]);
  return {
    ca: authority.cert,
    server: await sign("server", "IP:127.0.0.1,DNS:localhost"),
    elsewhere: await sign("elsewhere", "DNS:elsewhere.example"),
    expired: await sign("expired", "IP:127.0.0.1", -1),
    client: await sign("client", "DNS:client"),
    stranger,
    issue: (name) => sign(name, `DNS:${name}`),
  };
}
