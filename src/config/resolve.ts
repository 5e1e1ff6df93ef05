// How the modules of a configuration are found: a configuration file works from any folder, also without a package.json.

import { registerHooks } from "node:module";
import { toError } from "../errors.ts";

/**
 * Until disposed, in this thread: `import … from "sluice"` is this package, wherever the import stands; `zod` is this package's
 * where no other can be found; and a TypeScript file outside node_modules that is imported is an ES module, whatever package.json
 * is near it. `entry` is the URL of the configuration file: it is an ES module in JavaScript too.
 */
export function resolveForConfiguration(entry?: string): Disposable {
  const hooks = registerHooks({
    resolve(specifier, context, nextResolve) {
      if (specifier === "sluice") {
        const url = new URL("../index.ts", import.meta.url).href;
        return { url, format: "module-typescript", shortCircuit: true };
      }
      const found = specifier === "zod" ? ownIfMissing() : nextResolve(specifier, context);
      if (!context.conditions.includes("import") || found.url.includes("/node_modules/")) return found;
      const [file = ""] = found.url.split("?");
      if (file.endsWith(".ts")) return { ...found, format: "module-typescript" };
      return found.url === entry && file.endsWith(".js") ? { ...found, format: "module" } : found;

      function ownIfMissing(): ReturnType<typeof nextResolve> {
        try {
          return nextResolve(specifier, context);
        } catch (cause) {
          if ((toError(cause) as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
          return nextResolve(specifier, { ...context, parentURL: import.meta.url });
        }
      }
    },
  });
  return { [Symbol.dispose]: () => hooks.deregister() };
}
