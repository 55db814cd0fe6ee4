import { clockFaults } from './clock-faults.ts'
import { diskFaults } from './disk-faults.ts'
import type { ChaosFault } from './fault.ts'
import { processFaults } from './process-faults.ts'
import { targetFaults } from './target-faults.ts'
import { vaultFaults } from './vault-faults.ts'

/** What may happen to one sidecar. */
export const FAULTS: readonly ChaosFault[] = [
  ...vaultFaults,
  ...diskFaults,
  ...clockFaults,
  ...targetFaults,
  ...processFaults,
]
export { wholeVaultFaults as WHOLE_VAULT_FAULTS } from './vault-faults.ts'
