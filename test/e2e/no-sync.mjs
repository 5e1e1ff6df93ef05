// A seeded bug for the ledger to find: loaded into a gateway with `--import`, also into its threads, it makes the sync before each
// acknowledgement do nothing.

import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

fs.fdatasyncSync = () => {};
syncBuiltinESMExports();
