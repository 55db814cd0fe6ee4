import { SidecarError } from '../errors.ts'
import { mayHaveArrived, wasNeverSent } from './failures.ts'
import { type Answer, isUnable } from './replies.ts'

/** Asks one of several addresses, and the next ones where that one cannot be reached or cannot serve. */
export type Reach = (ask: (address: string) => Promise<Answer>) => Promise<Answer>

/**
 * The nodes of one cluster. It begins with the node that worked last, and goes on where nothing of the request was sent, or where the node
 * says that it serves nobody (sealed, not initialised, a disaster-recovery secondary, without a leader). A request that may have been
 * carried out is not sent again, but the next one begins with another node. When no node serves, the answer of one that said so is given,
 * or a failure that names them all. `onMove` hears when another node than before is the one that works.
 */
export function createReach(
  addresses: readonly string[],
  onMove: (event: { from: string; to: string; why: string }) => void = () => {},
): Reach {
  let preferred = 0

  return async (ask) => {
    const order = [...addresses.slice(preferred), ...addresses.slice(0, preferred)]
    const failures: SidecarError[] = []
    let unable: Answer | undefined
    for (const address of order) {
      try {
        const answer = await ask(address)
        if (!isUnable(answer)) {
          // It was the first: another request may have found a better one meanwhile.
          if (address !== order[0]) prefer(address, failures[0]?.reason ?? `it answered ${unable?.status}`)
          return answer
        }
        unable ??= answer
      } catch (error) {
        if (!(error instanceof SidecarError)) throw error
        if (!wasNeverSent(error)) {
          if (mayHaveArrived(error)) leave(address)
          throw error
        }
        failures.push(error)
      }
    }
    if (unable) return unable
    throw together(failures)
  }

  function prefer(address: string, why: string): void {
    const from = addresses[preferred]
    preferred = addresses.indexOf(address)
    if (from !== undefined && from !== address) onMove({ from, to: address, why })
  }

  /** Unless another request has left it already. */
  function leave(address: string): void {
    if (addresses[preferred] === address) preferred = (preferred + 1) % addresses.length
  }
}

/** The last failure, in the words of all. */
function together(failures: readonly SidecarError[]): SidecarError {
  const [last] = failures.slice(-1)
  if (!last) throw new TypeError('a Vault without an address')
  if (failures.length === 1) return last
  return new SidecarError(last.code, failures.map(({ message }) => message).join('; '), { cause: last.cause })
}
