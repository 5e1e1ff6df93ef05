import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createIdentities, credentials } from "../../../devices-sim/connection/identities.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sluice-credentials-"));
});
afterAll(() => rm(dir, { recursive: true }));

async function csv(...lines: readonly string[]): Promise<string> {
  const path = join(dir, "devices.csv");
  await writeFile(path, lines.join("\n"));
  return path;
}

const templates = { idPrefix: "sim-", username: undefined, password: undefined, credentials: undefined };

test("numbered devices fill their id into the templates", () => {
  const identityOf = createIdentities({ ...templates, username: "plant/{device}", password: "of-{device}-{device}" });
  expect(identityOf(41)).toEqual({
    device: "sim-000042",
    username: "plant/sim-000042",
    password: "of-sim-000042-sim-000042",
  });
  expect(createIdentities(templates)(0)).toEqual({ device: "sim-000001" });
});

test("a file says who the devices are: quotes as in RFC 4180, columns in any order, empty fields not given", async () => {
  const path = await csv(
    '\uFEFFpassword,device,"username"\r',
    '"s,e""cret",pump-1,plant-a\r',
    ",pump-2,\r",
    "",
    ' x ,"3",b',
  );
  const file = credentials(path);
  expect(file).toEqual({
    path,
    identities: [
      { device: "pump-1", username: "plant-a", password: 's,e"cret' },
      { device: "pump-2" },
      { device: "3", username: "b", password: " x " },
    ],
  });
});

test("what a line of the file leaves out, the templates say", async () => {
  const path = await csv("device,password", "pump-1,one", "pump-2,");
  const identityOf = createIdentities({ ...templates, credentials: path, username: "u-{device}", password: "all" });
  expect(identityOf(0)).toEqual({ device: "pump-1", username: "u-pump-1", password: "one" });
  expect(identityOf(1)).toEqual({ device: "pump-2", username: "u-pump-2", password: "all" });
});

test.each([
  [
    ["name,password", "a,b"],
    "line 1: expected a header with the columns device, username, password; device is missing",
  ],
  [["device,user", "a,b"], "line 1: expected a header with the columns device, username, password; 'user' is none"],
  [["device", "a", "b", "a"], "line 4: device 'a' is that of line 2"],
  [["device,password", "a,secret", "b,secret,c"], "line 3: expected 2 fields, found 3"],
  [["device,password", 'a,"secret'], "line 2: a quoted field does not end"],
  [["device,password", 'a,"sec"ret'], "line 2: a quoted field does not end"],
  [["device,password", ",secret"], "line 2: the device has no id"],
  [["device,password", "a/+,secret"], "line 2: device 'a/+': an id that becomes part of a topic"],
  [["device", ""], "has no device below its header"],
  [[""], "line 1: expected a header"],
])("%j is refused with its line, and without what is secret", async (lines, problem) => {
  const path = await csv(...lines);
  expect(() => credentials(path)).toThrow(problem);
  expect(() => credentials(path)).not.toThrow("secret");
});

test("a file that is not there is named", () => {
  expect(() => credentials(join(dir, "none.csv"))).toThrow("none.csv");
});
