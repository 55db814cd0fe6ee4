import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'

const Definition = z.looseObject({
  properties: z.record(z.string(), z.unknown()).optional(),
  'x-kubernetes-group-version-kind': z
    .array(z.object({ group: z.string(), version: z.string(), kind: z.string() }))
    .default([]),
})
const OpenApi = z.object({ definitions: z.record(z.string(), Definition) })

/** What OpenAPI 2 cannot say: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/ */
const NUMBER_OR_TEXT = { oneOf: [{ type: 'string' }, { type: 'number' }] }
const EXCEPTIONS: Readonly<Record<string, object>> = {
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString': NUMBER_OR_TEXT,
  'io.k8s.apimachinery.pkg.api.resource.Quantity': NUMBER_OR_TEXT,
}

/**
 * Makes JSON schemas for kubeconform of what the API server says of itself (GET /openapi/v2): no key that it does not know passes. The answer
 * is for `-schema-location`.
 */
export async function writeSchemas(openApi: unknown, folder: string): Promise<string> {
  const { definitions } = OpenApi.parse(openApi)
  await mkdir(folder, { recursive: true })
  const strict = Object.entries(definitions).map(([name, definition]) => [
    name,
    EXCEPTIONS[name] ?? strictly(definition),
  ])
  await writeFile(join(folder, 'definitions.json'), JSON.stringify({ definitions: Object.fromEntries(strict) }))
  for (const [name, { 'x-kubernetes-group-version-kind': kinds }] of Object.entries(definitions)) {
    // Of a kind that several groups have, such as DeleteOptions, no manifest is written.
    const [only, ...more] = kinds
    if (!only || more.length > 0) continue
    // For the core group kubeconform says the version in its place.
    const file = `${[only.group || only.version, only.version, only.kind].join('-').toLowerCase()}.json`
    await writeFile(join(folder, file), JSON.stringify({ $ref: `definitions.json#/definitions/${name}` }))
  }
  return join(folder, '{{ .Group }}-{{ .ResourceAPIVersion }}-{{ .ResourceKind }}.json')
}

const strictly = (definition: z.output<typeof Definition>) =>
  definition.properties ? { ...definition, additionalProperties: false } : definition
