import { migrateConsulTemplate } from './consul-template.ts'
import type { Migration, Surroundings } from './migration.ts'
import { migrateSpiffeHelper } from './spiffe-helper.ts'
import { migrateVaultAgent } from './vault-agent.ts'

type Migrate = (text: string, file: string, surroundings: Surroundings) => Migration

/** The tools that certferry reads the configs of. */
export const TOOLS: Readonly<Record<string, Migrate>> = {
  'vault-agent': migrateVaultAgent,
  'consul-template': migrateConsulTemplate,
  'spiffe-helper': migrateSpiffeHelper,
}
