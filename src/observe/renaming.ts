import type { Emit, EventMap, EventName } from './events.ts'

/** For each event that is told otherwise, how. */
export type Telling = { readonly [Name in EventName]?: (event: EventMap[Name], emit: Emit) => void }

/** The flow tells of everything as of a certificate; here some of it is told in other words, and the rest passes as it is. */
export const renaming =
  (telling: Telling) =>
  (emit: Emit): Emit =>
  (name, event) => {
    const tell = telling[name]
    if (tell) tell(event, emit)
    else emit(name, event)
  }
