import * as z from 'zod'

/** One finished test as the process that ran it tells the runner. */
export const TestMessage = z.strictObject({
  result: z.enum(['passed', 'failed', 'skipped']),
  /** Names from the outermost suite down. */
  name: z.string(),
  /** Relative to the repository, with the line where it is known. */
  place: z.string(),
  durationMs: z.number(),
  /** Why it failed or was skipped, ready to print. */
  detail: z.string(),
})
export type TestMessage = z.output<typeof TestMessage>

/** What a test has measured, for whoever reads the report: `t.diagnostic`. */
export const FigureMessage = z.strictObject({ figure: z.string() })
export type FigureMessage = z.output<typeof FigureMessage>

/** The tests that run at the moment, each with its place; sent whenever that changes. */
export const RunningMessage = z.strictObject({ running: z.array(z.string()) })
export type RunningMessage = z.output<typeof RunningMessage>

/** All files were run to their end; without it the process left early, and what it has told is not all. */
export const DoneMessage = z.strictObject({ done: z.literal(true) })
export type DoneMessage = z.output<typeof DoneMessage>

export const Message = z.union([TestMessage, FigureMessage, RunningMessage, DoneMessage])
