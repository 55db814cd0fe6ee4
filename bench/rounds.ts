import type { Values } from './row.ts'

export interface Participant<T> {
  readonly name: string
  measure(): Promise<T>
}

/**
 * Turn by turn, each round starting with another one, so that a change in the machine's load meets all of them. Round 0 warms up and is
 * not counted.
 */
export async function inRounds<T>(
  participants: readonly Participant<T>[],
  rounds: number,
  progress: (text: string) => void,
): Promise<Results<T>> {
  const results = new Map(participants.map(({ name }): [string, T[]] => [name, []]))
  for (let round = 0; round <= rounds; round += 1) {
    progress(round === 0 ? 'warm-up' : `round ${round} of ${rounds}`)
    for (let turn = 0; turn < participants.length; turn += 1) {
      const participant = participants[(round + turn) % participants.length]
      const result = await participant?.measure()
      if (participant && result !== undefined && round > 0) results.get(participant.name)?.push(result)
    }
  }
  return results
}

export type Results<T> = ReadonlyMap<string, readonly T[]>

/** One figure of all results; nobody who has none. */
export const valuesOf = <T>(results: Results<T>, pick: (result: T) => number | undefined): Values =>
  Object.fromEntries(
    [...results].flatMap(([name, all]) => {
      const values = all.flatMap((result) => pick(result) ?? [])
      return values.length > 0 ? [[name, values]] : []
    }),
  )
