// Is the gateway alive, and can it take messages?

/** One reason why the gateway is not ready, as a sentence for the operator. */
type NotReady = string;

export interface HealthSources {
  readonly journal: () => {
    readonly state: "open" | "full" | "failed";
    readonly hint: string;
    /** False: it can never take messages again in this process. */
    readonly alive: boolean;
  };
  readonly stage: () => "starting" | "running" | "stopping";
}

export interface Health {
  /** False: only a new start of the process helps. */
  readonly live: boolean;
  readonly ready: boolean;
  readonly reasons: readonly NotReady[];
}

/** A dead sink does not make the gateway unready: it loses nothing and blocks nobody. */
export function readHealth({ journal, stage }: HealthSources): Health {
  const reasons: NotReady[] = [];
  if (stage() !== "running") reasons.push(`the gateway is ${stage()}`);
  const { state, hint, alive } = journal();
  if (state !== "open") reasons.push(`the journal is ${state}: ${hint}`);
  return { live: alive, ready: reasons.length === 0, reasons };
}
