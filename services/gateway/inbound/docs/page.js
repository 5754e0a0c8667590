// Starts Swagger UI on the gateway's own document. Nothing is asked of any other host, and no key is kept.
SwaggerUIBundle({
  // Whole: of a page that was opened as http://any:KEY@host/docs/ a relative address would carry the key, which fetch refuses.
  url: `${location.origin}/docs/openapi.json`,
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
