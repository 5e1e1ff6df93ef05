// Runs a TypeScript entry on Node >= 24.15. A shell's older Node finds the project's own (the devDependency `node`) and
// hands over to it: same arguments, streams, signals and exit code; without one it says what to install.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import module from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const MINIMUM = [24, 15];

/** `options`: of Node, which it takes at its start only. The process begins anew with them and stays the same process. */
export function launch(entry, options = []) {
  const [major, minor] = process.versions.node.split(".").map(Number);
  const recent = major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1]);
  const path = fileURLToPath(new URL(entry, import.meta.url));
  if (recent) {
    const missing = options.filter((option) => !process.execArgv.includes(option));
    // Not where the system has no execve, and not with a parent's channel, which would be lost.
    if (missing.length > 0 && process.execve !== undefined && process.channel === undefined) {
      const args = [...process.execArgv, ...missing, ...process.argv.slice(1)];
      process.execve(process.execPath, [process.execPath, ...args]);
    }
    // By the environment, or worker threads have none: a third of the time in which a gateway with ten sinks starts.
    process.env.NODE_COMPILE_CACHE ??= join(tmpdir(), "node-compile-cache");
    module.enableCompileCache?.();
    void import(path);
    return;
  }
  const own = fileURLToPath(new URL("../node_modules/node/bin/node", import.meta.url));
  if (!existsSync(own)) {
    console.error(
      `Sluice needs Node ${MINIMUM.join(".")} or newer; this is ${process.version}. Install it, or run \`npm ci\` in ${fileURLToPath(new URL("..", import.meta.url))}.`,
    );
    process.exit(1);
  }
  const child = spawn(own, [...options, path, ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? (signal === "SIGINT" ? 130 : 143);
  });
}
