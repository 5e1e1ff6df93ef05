// The parts of packages without types that the broker room uses.

declare module "qlobber" {
  export interface QlobberOptions {
    readonly separator?: string;
    readonly wildcard_one?: string;
    readonly wildcard_some?: string;
    readonly match_empty_levels?: boolean;
  }

  export class Qlobber<Value> {
    constructor(options?: QlobberOptions);
    add(filter: string, value: Value): this;
    remove(filter: string, value?: Value): this;
    match(topic: string): Value[];
  }
}
