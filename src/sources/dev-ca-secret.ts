import * as z from 'zod'
import { Secret } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { ROOT_FILE, SECRET_FILE } from './dev-ca-files.ts'

/** Key and certificates of a new CA, and its root by itself. */
export interface NewAuthority {
  readonly text: string
  readonly root: string
}

const SecretObject = z.object({ data: z.record(z.string(), z.string()).default({}) })

/**
 * The text kept in a Secret of the own namespace; `create` makes one where there is none. Of several pods that try the first one wins, and the
 * others read what it made. Needs the verbs get and create. Throws FOREIGN_OBJECT for a Secret that holds something else, and KUBERNETES_*.
 */
export async function readOrCreateInSecret(
  api: Kubernetes,
  name: string,
  create: () => Promise<NewAuthority>,
  signal: AbortSignal,
): Promise<string> {
  const secrets = ['api', 'v1', 'namespaces', api.namespace, 'secrets']
  const found = (await read(signal)) ?? (await make()) ?? (await read(signal))
  if (found !== undefined) return found
  throw new SidecarError('KUBERNETES_CONFLICT', `Secret ${api.namespace}/${name} comes and goes`)

  async function read(signal: AbortSignal): Promise<string | undefined> {
    const object = await unless('KUBERNETES_NOT_FOUND', () =>
      api.ask({ method: 'GET', path: [...secrets, name] }, SecretObject, signal),
    )
    if (!object) return undefined
    const text = Buffer.from(object.data[SECRET_FILE] ?? '', 'base64').toString('utf8')
    if (text !== '') return text
    throw new SidecarError(
      'FOREIGN_OBJECT',
      `Secret ${api.namespace}/${name} holds no ${SECRET_FILE}: it is not a development CA; delete it, or name another one`,
    )
  }

  /** Undefined where somebody else was first. */
  async function make(): Promise<string | undefined> {
    const { text, root } = await create()
    const body = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name, namespace: api.namespace, labels: { 'app.kubernetes.io/managed-by': 'certferry' } },
      type: 'Opaque',
      data: { [SECRET_FILE]: base64(text), [ROOT_FILE]: base64(root) },
    }
    const query = { fieldManager: 'certferry' }
    const made = await unless('KUBERNETES_CONFLICT', () =>
      api.ask({ method: 'POST', path: secrets, query, body }, z.object({}), signal),
    )
    return made && text
  }
}

async function unless<T>(code: SidecarError['code'], ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask()
  } catch (error) {
    if (error instanceof SidecarError && error.code === code) return undefined
    throw error
  }
}

const base64 = (text: string) => new Secret(Buffer.from(text).toString('base64'))
