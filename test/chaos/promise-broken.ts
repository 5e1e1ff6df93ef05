/** The gateway did not do what it promises: the run ends, and its exit code is 1. */
export class PromiseBroken extends Error {
  override readonly name = "PromiseBroken";
}
