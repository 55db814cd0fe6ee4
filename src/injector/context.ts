import { SidecarError } from '../errors.ts'
import { Defaults } from './annotations.ts'
import type { InjectorContext } from './inject.ts'
import type { InjectorOptions } from './options.ts'

/** What holds for all pods, but for what only the cluster knows. Throws CONFIG_INVALID for defaults that no annotation has. */
export function contextOf(
  { image, vaultAnnotations, namespace, defaults }: InjectorOptions,
  env: Readonly<Record<string, string | undefined>>,
): Omit<InjectorContext, 'nativeSidecars'> {
  const issues = Defaults.safeParse(defaults).error?.issues ?? []
  if (issues.length > 0) {
    const lines = issues.map(({ path, message }) => `injector.defaults.${path.join('.')}: ${message}`)
    throw new SidecarError('CONFIG_INVALID', lines.join('; '))
  }
  return { image, vaultAnnotations, ownNamespace: namespace ?? (env.POD_NAMESPACE || undefined), defaults }
}
