import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createTcpServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { readTls, tlsSettings, toTlsHint } from "../../src/sinks/tls.ts";
import { makeCertificates, type Certificate, type Certificates } from "../servers/certificates.ts";
import { startServer } from "../servers/server.ts";

let dir: string;
let files: Certificates;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-tls-"));
  files = await makeCertificates(dir);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function listen({ cert, key }: Certificate, options = {}): Promise<number> {
  const server = createServer({ cert: await readFile(cert), key: await readFile(key), ...options }, (socket) =>
    socket.on("error", () => {}).end("hello"),
  );
  return await open(server);
}

async function open(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  onTestFinished(() => void server.close());
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

const read = (given: object): Promise<unknown> => readTls(tlsSettings.parse(given));

/** "hello", or what the connection failed with. */
async function greet(port: number, given: object): Promise<unknown> {
  const options = await readTls(tlsSettings.parse(given));
  const socket = connect({ host: "127.0.0.1", port, ...options });
  try {
    const [data] = (await once(socket, "data")) as [Buffer];
    return data.toString();
  } catch (cause) {
    return cause;
  } finally {
    socket.destroy();
  }
}

describe("TLS towards a server", () => {
  test("connects with an authority of its own", async () => {
    expect(await greet(await listen(files.server), { ca: files.ca })).toBe("hello");
  });

  test("shows a certificate to a server that wants one", async () => {
    const port = await listen(files.server, { ca: await readFile(files.ca), requestCert: true });
    expect(await greet(port, { ca: files.ca, ...files.client })).toBe("hello");
  });

  // A server of Node.js only closes the connection then.
  test.each(["-tls1_3", "-tls1_2"])(
    "says that the server wants a certificate, or another one (%s)",
    async (version) => {
      const verify = ["-Verify", "1", "-verify_return_error", "-CAfile", files.ca, version, "-quiet"];
      await using server = await startServer({
        command: "openssl",
        args: ({ port }) => {
          const own = ["-cert", files.server.cert, "-key", files.server.key];
          return ["s_server", "-accept", `127.0.0.1:${port}`, ...own, ...verify];
        },
      });
      const without = await greet(server.port, { ca: files.ca });
      expect(toTlsHint(without)).toBe("The server wants a certificate that it knows: give tls.cert and tls.key.");
      const another = await greet(server.port, { ca: files.ca, ...files.stranger });
      expect(toTlsHint(another)).toBe("The server refuses the certificate of tls.cert.");
    },
  );

  test("connects to anybody only when it is told to", async () => {
    const port = await listen(files.stranger);
    expect(await greet(port, { rejectUnauthorized: false })).toBe("hello");
    expect(toTlsHint(await greet(port, {}))).toMatch("authority that is not known here");
  });

  test.each([
    ["an authority that is not known", "server", {}, "give it as tls.ca"],
    ["another name", "elsewhere", { ca: true }, "for another name"],
    ["the past", "expired", { ca: true }, "has expired"],
  ] as const)(
    "says what is wrong with a certificate of %s",
    async (_, server, { ca = false }: { ca?: boolean }, hint) => {
      const failure = await greet(await listen(files[server]), ca ? { ca: files.ca } : {});
      expect(failure).toBeInstanceOf(Error);
      expect(toTlsHint(failure)).toMatch(hint);
    },
  );

  test("says that the server speaks no TLS", async () => {
    const port = await open(
      createTcpServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n")),
    );
    expect(toTlsHint(await greet(port, { ca: files.ca }))).toBe("The server speaks no TLS on this port.");
  });

  test("does not blame the certificates for a connection that was reset", async () => {
    const port = await open(createTcpServer((socket) => socket.resetAndDestroy()));
    const failure = await greet(port, { ca: files.ca });
    expect(failure).toBeInstanceOf(Error);
    expect(toTlsHint(failure)).toBeUndefined();
  });

  test("names the file that is missing, is no PEM, or does not fit", async () => {
    const noise = join(dir, "noise.pem");
    await writeFile(noise, "no certificate");
    await expect(read({ ca: join(dir, "missing.pem") })).rejects.toThrow(/tls\.ca cannot be read.*missing\.pem/);
    await expect(read({ ca: noise })).rejects.toMatchObject({
      kind: "misconfigured",
      message: `tls.ca is not a PEM file: ${noise} has no line -----BEGIN …-----.`,
    });
    await expect(read({ cert: files.client.cert, key: files.server.key })).rejects.toThrow(
      `TLS cannot be used with ${files.client.cert}, ${files.server.key}: `,
    );
  });

  test("wants a certificate and its key together", () => {
    expect(tlsSettings.safeParse({ cert: "a" }).error?.issues[0]?.message).toBe("expected cert and key together");
  });
});
