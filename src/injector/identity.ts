import { PREFIX } from './annotations.ts'
import { type Container, consumersOf, type Pod } from './pod.ts'
import { sendsSignal } from './sidecar-config.ts'
import type { Trouble, Wish } from './wish.ts'

/** That of the image. */
const OWN_ID = 65_532

/** Who the sidecar runs as, and who reads its files. */
export interface Identity {
  /** Undefined leaves it to the platform. */
  readonly user: number | undefined
  readonly group: number | undefined
  /** Others than that user read the files, by their group. */
  readonly isShared: boolean
  /** Group that the containers of the pod are to have, so that they can. */
  readonly supplementalGroup: number | undefined
  readonly warnings: readonly string[]
  readonly troubles: readonly Trouble[]
}

/**
 * The user of the containers that use the certificates, where the pod says who that is: then the files are for that user alone, and a signal
 * may be sent. Otherwise a user of its own, whose group every container of the pod gets (`supplementalGroups`, which unlike `fsGroup` changes
 * no volume).
 */
export function identityFor(pod: Pod, wish: Wish): Identity {
  const {
    'run-as-user': user,
    'run-as-group': group,
    'run-as-same-user': same,
    'set-security-context': isSet,
  } = wish.pod
  if (!isSet) return { ...NOBODY, warnings: [] }
  const consumers = consumersOf(pod, wish.pod.containers)
  const theirs = agreed(consumers, pod, 'runAsUser')
  const theirGroup = agreed(consumers, pod, 'runAsGroup')
  if (same && theirs === undefined)
    return {
      ...NOBODY,
      warnings: [],
      troubles: [{ annotation: `${PREFIX}run-as-same-user`, message: unknownUser(consumers) }],
    }
  // Root reads everything anyway, and not being root is worth more.
  const taken = same || (same === undefined && theirs !== 0) ? theirs : undefined
  const chosen = user ?? taken ?? OWN_ID
  const isShared = chosen !== theirs
  const chosenGroup = group ?? (isShared ? OWN_ID : theirGroup)
  const cannotSignal = isShared && chosen !== 0 && sendsSignal(wish)
  return {
    user: chosen,
    group: chosenGroup,
    isShared,
    supplementalGroup: isShared ? chosenGroup : undefined,
    warnings: cannotSignal
      ? [
          `certferry: it runs as user ${chosen} and may signal only processes of that user: ${theirs === undefined ? unknownUser(consumers) : `${names(consumers)} as user ${theirs}; set ${PREFIX}run-as-same-user: 'true'`}`,
        ]
      : [],
    troubles: [],
  }
}

const NOBODY = { user: undefined, group: undefined, isShared: false, supplementalGroup: undefined, troubles: [] }

/** What all of them run as, as far as the pod says; the user of an image is not known here. */
function agreed(consumers: readonly Container[], { spec }: Pod, key: 'runAsUser' | 'runAsGroup'): number | undefined {
  const ids = new Set(
    consumers.map(({ securityContext }) => securityContext?.[key] ?? spec.securityContext?.[key] ?? undefined),
  )
  const [first] = ids
  return ids.size === 1 ? first : undefined
}

const names = (consumers: readonly Container[]) => consumers.map(({ name }) => name).join(', ')

const unknownUser = (consumers: readonly Container[]) =>
  `the pod does not say which one user ${names(consumers)} runs as; set securityContext.runAsUser`
