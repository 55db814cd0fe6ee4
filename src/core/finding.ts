/** One thing looked at before it can fail. */
export interface Finding {
  /** Undefined where it could not be found out. */
  readonly ok: boolean | undefined
  /** What was looked at, and what was found. */
  readonly what: string
  /** What to do about it. */
  readonly fix?: string
}
