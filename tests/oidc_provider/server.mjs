// A real OpenID provider for the tests: issuer http://127.0.0.1:PORT, one person (alice), who consents to everything.
// KEYS is a JSON Web Key Set with the private keys; another process with other keys on the same port rotates them.
// The pages have forms. A person in a browser needs no hand: SCRIPT=1 submits the forms.
import { Provider } from 'oidc-provider';

const port = Number(process.env.PORT);
const audience = 'urn:jobcloud';
const groups = ['dev', 'ops'];
const submit = process.env.SCRIPT ? '<script>document.forms[0].submit()</script>' : '';
const page = (form) => `<!doctype html><title>Provider</title>${form}${submit}`;

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(process.env.KEYS),
  cookies: { keys: ['a key of the tests'] },
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
  scopes: ['openid', 'profile', 'offline_access', 'api'],
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, groups }),
  }),
  extraTokenClaims: (ctx, token) => (token.kind === 'AccessToken' ? { groups } : undefined),
  features: {
    devInteractions: { enabled: false },
    deviceFlow: {
      enabled: true,
      userCodeInputSource: (ctx, form) => { ctx.body = page(form); },
      userCodeConfirmSource: (ctx, form) => { ctx.body = page(form); },
      successSource: (ctx) => { ctx.body = '<title>Done</title>'; },
    },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: 'api', audience, accessTokenFormat: 'jwt' }),
    },
  },
  ttl: { AccessToken: () => Number(process.env.ACCESS_TTL || 600) },
  clients: [
    {
      client_id: 'jobcloud-console',
      client_secret: 'a secret of the tests',
      application_type: 'native', // any port of the loopback address
      redirect_uris: ['http://127.0.0.1/login/oidc/callback'],
      post_logout_redirect_uris: ['http://127.0.0.1/login'],
    },
    {
      client_id: 'jobcloud-cli',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    },
    {
      client_id: 'batch',
      client_secret: 'a secret of a machine',
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
    },
  ],
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) {
    await next();
    return;
  }
  const details = await provider.interactionDetails(ctx.req, ctx.res);
  if (ctx.method === 'GET') {
    ctx.type = 'html';
    ctx.body = page(`<form method="post" action="${ctx.path}"><button>${details.prompt.name}</button></form>`);
    return;
  }
  let result = { login: { accountId: 'alice' } };
  if (details.prompt.name === 'consent') {
    const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = details.prompt.details;
    const grant = details.grantId
      ? await provider.Grant.find(details.grantId)
      : new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
    if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
    if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
    for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, scopes.join(' '));
    }
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: true }));
  ctx.status = 303;
});

provider.on('server_error', (ctx, error) => console.error(error));
provider.listen(port, '127.0.0.1', () => console.log('listening'));
