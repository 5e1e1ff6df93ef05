// Loads the configuration file that argv names, in a process of its own, and prints what became of it as JSON.
import { loadConfig } from "../../src/config/load.ts";

const [file] = process.argv.slice(2);
console.log(JSON.stringify(await loadConfig(file, process.env)));
