import { registry } from '../registry.ts'
import type { AnchorSource, ListSource, TrustDeps } from './anchor.ts'
import { fileAnchors, fileLists } from './file.ts'
import { httpLists } from './http.ts'
import { systemAnchors } from './system.ts'
import { vaultPkiAnchors, vaultPkiLists } from './vault-pki.ts'

/** All places that a CA may come from. */
export const anchors = registry<TrustDeps, AnchorSource>(vaultPkiAnchors, fileAnchors, systemAnchors)
/** All places that a revocation list may come from. */
export const lists = registry<TrustDeps, ListSource>(vaultPkiLists, httpLists, fileLists)
