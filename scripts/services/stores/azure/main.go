// A local Azure Key Vault (secrets) and Entra ID. The wire format of the vault
// (routes, JSON) is Microsoft's own: github.com/Azure/azure-sdk-for-go/sdk/
// security/keyvault/azsecrets/fake. The store, the challenge, the endpoints for
// tokens and the rules of permission are written here.
//
// Who there is: app-admin (everything), app-reader and app-revoked (get),
// app-denied (nothing).
// A vault is a host name; it exists as soon as somebody asks for it.
package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"
)

const resource = "https://vault.azure.net"

type hostKey struct{}

// kvError carries Key Vault's error body through the fake's error channel.
type kvError struct {
	status            int
	code, inner, text string
}

func (e *kvError) Error() string { return e.text }
func (e *kvError) NonRetriable() {}

type secret struct {
	versions  []*azsecrets.Secret
	deletedAt *time.Time
}

type principal struct{ id, perms string }

type srv struct {
	mu       sync.Mutex
	vaults   map[string]map[string]*secret // host -> name -> secret
	tokens   map[string]principal
	clients  map[string][2]string // client id -> secret, perms
}

func hexID(n int) string { b := make([]byte, n); rand.Read(b); return hex.EncodeToString(b) }

func (s *srv) vault(ctx context.Context) map[string]*secret {
	h := ctx.Value(hostKey{}).(string)
	if s.vaults[h] == nil {
		s.vaults[h] = map[string]*secret{}
	}
	return s.vaults[h]
}
func id(ctx context.Context, parts ...string) *azsecrets.ID {
	return to.Ptr(azsecrets.ID("https://" + ctx.Value(hostKey{}).(string) + "/" + strings.Join(parts, "/")))
}
func notFound(n string) error {
	return &kvError{404, "SecretNotFound", "", "A secret with (name/id) " + n + " was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command."}
}

var nameRE = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

func (s *srv) fake() *fake.Server {
	return &fake.Server{
		SetSecret: func(ctx context.Context, name string, p azsecrets.SetSecretParameters, _ *azsecrets.SetSecretOptions) (r azfake.Responder[azsecrets.SetSecretResponse], e azfake.ErrorResponder) {
			if !nameRE.MatchString(name) || p.Value == nil || len(*p.Value) > 25*1024 {
				e.SetError(&kvError{400, "BadParameter", "", "The request URI or value is invalid."})
				return
			}
			v := s.vault(ctx)
			sec := v[name]
			if sec != nil && sec.deletedAt != nil {
				e.SetError(&kvError{409, "Conflict", "ObjectIsDeletedButRecoverable", "Secret " + name + " is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged."})
				return
			}
			if sec == nil {
				sec = &secret{}
				v[name] = sec
			}
			now := time.Now().UTC().Truncate(time.Second)
			a := &azsecrets.SecretAttributes{Enabled: to.Ptr(true), Created: &now, Updated: &now, RecoveryLevel: to.Ptr("Recoverable+Purgeable"), RecoverableDays: to.Ptr(int32(90))}
			if p.SecretAttributes != nil {
				if p.SecretAttributes.Enabled != nil {
					a.Enabled = p.SecretAttributes.Enabled
				}
				a.Expires, a.NotBefore = p.SecretAttributes.Expires, p.SecretAttributes.NotBefore
			}
			n := &azsecrets.Secret{ID: id(ctx, "secrets", name, hexID(16)), Value: p.Value, ContentType: p.ContentType, Tags: p.Tags, Attributes: a}
			sec.versions = append(sec.versions, n)
			r.SetResponse(200, azsecrets.SetSecretResponse{Secret: *n}, nil)
			return
		},
		GetSecret: func(ctx context.Context, name, version string, _ *azsecrets.GetSecretOptions) (r azfake.Responder[azsecrets.GetSecretResponse], e azfake.ErrorResponder) {
			n := s.find(ctx, name, version)
			switch {
			case n == nil && version != "":
				e.SetError(notFound(name + "/" + version))
			case n == nil:
				e.SetError(notFound(name))
			case !*n.Attributes.Enabled:
				e.SetError(&kvError{403, "Forbidden", "SecretDisabled", "Operation get is not allowed on a disabled secret."})
			default:
				r.SetResponse(200, azsecrets.GetSecretResponse{Secret: *n}, nil)
			}
			return
		},
		UpdateSecretProperties: func(ctx context.Context, name, version string, p azsecrets.UpdateSecretPropertiesParameters, _ *azsecrets.UpdateSecretPropertiesOptions) (r azfake.Responder[azsecrets.UpdateSecretPropertiesResponse], e azfake.ErrorResponder) {
			n := s.find(ctx, name, version)
			if n == nil {
				e.SetError(notFound(name))
				return
			}
			if a := p.SecretAttributes; a != nil {
				if a.Enabled != nil {
					n.Attributes.Enabled = a.Enabled
				}
				if a.Expires != nil {
					n.Attributes.Expires = a.Expires
				}
			}
			if p.Tags != nil {
				n.Tags = p.Tags
			}
			out := *n
			out.Value = nil
			r.SetResponse(200, azsecrets.UpdateSecretPropertiesResponse{Secret: out}, nil)
			return
		},
		DeleteSecret: func(ctx context.Context, name string, _ *azsecrets.DeleteSecretOptions) (r azfake.Responder[azsecrets.DeleteSecretResponse], e azfake.ErrorResponder) {
			n := s.find(ctx, name, "")
			if n == nil {
				e.SetError(notFound(name))
				return
			}
			now := time.Now().UTC()
			s.vault(ctx)[name].deletedAt = &now
			r.SetResponse(200, azsecrets.DeleteSecretResponse{DeletedSecret: azsecrets.DeletedSecret{ID: n.ID, Attributes: n.Attributes, DeletedDate: &now, RecoveryID: to.Ptr(string(*id(ctx, "deletedsecrets", name)))}}, nil)
			return
		},
		RecoverDeletedSecret: func(ctx context.Context, name string, _ *azsecrets.RecoverDeletedSecretOptions) (r azfake.Responder[azsecrets.RecoverDeletedSecretResponse], e azfake.ErrorResponder) {
			sec := s.vault(ctx)[name]
			if sec == nil || sec.deletedAt == nil {
				e.SetError(notFound(name))
				return
			}
			sec.deletedAt = nil
			r.SetResponse(200, azsecrets.RecoverDeletedSecretResponse{Secret: *sec.versions[len(sec.versions)-1]}, nil)
			return
		},
		PurgeDeletedSecret: func(ctx context.Context, name string, _ *azsecrets.PurgeDeletedSecretOptions) (r azfake.Responder[azsecrets.PurgeDeletedSecretResponse], e azfake.ErrorResponder) {
			delete(s.vault(ctx), name)
			r.SetResponse(204, azsecrets.PurgeDeletedSecretResponse{}, nil)
			return
		},
	}
}

func (s *srv) find(ctx context.Context, name, version string) *azsecrets.Secret {
	sec := s.vault(ctx)[name]
	if sec == nil || sec.deletedAt != nil || len(sec.versions) == 0 {
		return nil
	}
	if version == "" {
		return sec.versions[len(sec.versions)-1]
	}
	for _, v := range sec.versions {
		if v.ID.Version() == version {
			return v
		}
	}
	return nil
}

// list answers the two list calls in one page (max 25 a page in the service).
func (s *srv) list(ctx context.Context, name string) any {
	out := azsecrets.SecretPropertiesListResult{Value: []*azsecrets.SecretProperties{}}
	add := func(v *azsecrets.Secret, i *azsecrets.ID) {
		out.Value = append(out.Value, &azsecrets.SecretProperties{ID: i, Attributes: v.Attributes, ContentType: v.ContentType, Tags: v.Tags})
	}
	v := s.vault(ctx)
	if name != "" {
		if sec := v[name]; sec != nil && sec.deletedAt == nil {
			for _, x := range sec.versions {
				add(x, x.ID)
			}
		}
		return out
	}
	names := []string{}
	for n, sec := range v {
		if sec.deletedAt == nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	for _, n := range names {
		add(v[n].versions[len(v[n].versions)-1], id(ctx, "secrets", n))
	}
	return out
}

func fail(w http.ResponseWriter, e *kvError) {
	body := map[string]any{"code": e.code, "message": e.text}
	if e.inner != "" {
		body["innererror"] = map[string]string{"code": e.inner}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("x-ms-request-id", hexID(16))
	w.WriteHeader(e.status)
	json.NewEncoder(w).Encode(map[string]any{"error": body})
}

func (s *srv) mint(p principal, aud string) string {
	b := base64.RawURLEncoding.EncodeToString
	c, _ := json.Marshal(map[string]any{"aud": aud, "oid": p.id, "appid": p.id, "exp": time.Now().Add(time.Hour).Unix()})
	t := b([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + b(c) + "." + hexID(16)
	s.tokens[t] = p
	return t
}

func (s *srv) token(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	cid := r.PostForm.Get("client_id")
	c, ok := s.clients[cid]
	bad := ""
	switch {
	case !ok:
		bad = "AADSTS700016: Application with identifier '" + cid + "' was not found in the directory."
	case r.PostForm.Get("scope") != resource+"/.default":
		bad = "AADSTS500011: The resource principal named " + r.PostForm.Get("scope") + " was not found."
	case r.PostForm.Get("client_assertion") != "":
		if strings.Count(r.PostForm.Get("client_assertion"), ".") != 2 {
			bad = "AADSTS50027: JWT token is invalid or malformed."
		}
	case r.PostForm.Get("client_secret") != c[0]:
		bad = "AADSTS7000215: Invalid client secret provided."
	}
	w.Header().Set("Content-Type", "application/json")
	if bad != "" {
		w.WriteHeader(401)
		json.NewEncoder(w).Encode(map[string]any{"error": "invalid_client", "error_description": bad, "error_codes": []int{0}})
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": s.mint(principal{cid, c[1]}, resource)})
}

// msi serves App Service (X-IDENTITY-HEADER) and IMDS (Metadata: true) token calls.
func (s *srv) msi(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Identity-Header") == "" && r.Header.Get("Metadata") != "true" {
		http.Error(w, `{"error":"invalid_request"}`, 400)
		return
	}
	cid := r.URL.Query().Get("client_id")
	if cid == "" {
		cid = "app-admin"
	}
	c, ok := s.clients[cid]
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(400)
		io.WriteString(w, `{"error":"invalid_request","error_description":"Identity not found"}`)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "resource": resource, "client_id": cid, "expires_in": "3599", "expires_on": strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10), "access_token": s.mint(principal{cid, c[1]}, resource)})
}

func (s *srv) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := r.URL.Path
	auth := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	log.Printf("%s %s%s auth=%v len=%d", r.Method, r.Host, p, auth != "", r.ContentLength)
	switch {
	case p == "/healthz":
		io.WriteString(w, "ok")
		return
	case strings.HasSuffix(p, "/oauth2/v2.0/token"):
		s.token(w, r)
		return
	case p == "/msi/token" || p == "/metadata/identity/oauth2/token":
		s.msi(w, r)
		return
	case p == "/_admin/revoke": // ?client=ID: forget its tokens, so that they are answered 401
		for token, who := range s.tokens {
			if who.id == r.URL.Query().Get("client") {
				delete(s.tokens, token)
			}
		}
		return
	}
	pr, ok := s.tokens[auth]
	if !ok {
		ch := `Bearer authorization="https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111", resource="` + resource + `"`
		if auth != "" {
			ch = strings.Replace(ch, "Bearer ", `Bearer error="invalid_token", `, 1)
		}
		w.Header().Set("WWW-Authenticate", ch)
		fail(w, &kvError{401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token."})
		return
	}
	if r.URL.Query().Get("api-version") == "" {
		fail(w, &kvError{400, "BadParameter", "", "api-version must be specified"})
		return
	}
	seg := strings.Split(strings.Trim(p, "/"), "/")
	name, perm := "", ""
	switch {
	case r.Method == "GET" && p == "/secrets":
		name, perm = "list", "list"
	case r.Method == "GET" && seg[0] == "secrets" && len(seg) == 3 && seg[2] == "versions":
		name, perm = "versions", "list"
	case r.Method == "GET" && seg[0] == "secrets" && len(seg) <= 3:
		name, perm = "Client.GetSecret", "get"
	case r.Method == "PUT" && seg[0] == "secrets" && len(seg) == 2:
		name, perm = "Client.SetSecret", "set"
	case r.Method == "PATCH" && seg[0] == "secrets":
		name, perm = "Client.UpdateSecretProperties", "set"
	case r.Method == "DELETE" && seg[0] == "secrets":
		name, perm = "Client.DeleteSecret", "delete"
	case r.Method == "DELETE" && seg[0] == "deletedsecrets":
		name, perm = "Client.PurgeDeletedSecret", "purge"
	case r.Method == "POST" && strings.HasSuffix(p, "/recover"):
		name, perm = "Client.RecoverDeletedSecret", "recover"
	default:
		fail(w, &kvError{404, "NotFound", "", "no such route"})
		return
	}
	if pr.perms != "*" && !strings.Contains(pr.perms, perm) {
		fail(w, &kvError{403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/secrets/" + perm + "'\r\nCaller: appid=" + pr.id})
		return
	}
	ctx := context.WithValue(r.Context(), hostKey{}, r.Host)
	if perm == "list" {
		n := ""
		if name == "versions" {
			n = seg[1]
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		json.NewEncoder(w).Encode(s.list(ctx, n))
		return
	}
	body, _ := io.ReadAll(r.Body)
	req := r.Clone(context.WithValue(ctx, runtime.CtxAPINameKey{}, name))
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.URL.Scheme, req.URL.Host = "https", r.Host
	resp, err := fake.NewServerTransport(s.fake()).Do(req)
	if err != nil {
		var ke *kvError
		var re *azcore.ResponseError
		switch {
		case errors.As(err, &ke):
			fail(w, ke)
		case errors.As(err, &re):
			fail(w, &kvError{re.StatusCode, re.ErrorCode, "", re.Error()})
		default:
			fail(w, &kvError{400, "BadParameter", "", err.Error()})
		}
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// certs makes a CA and a leaf for the vault and authority names; writes ca.pem.
func certs(dir string) tls.Certificate {
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	mk := func(t, parent *x509.Certificate, pk *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		if pk == nil {
			pk = k
		}
		d, err := x509.CreateCertificate(rand.Reader, t, parent, &k.PublicKey, pk)
		must(err)
		return d, k
	}
	nb, na := time.Now().Add(-time.Hour), time.Now().Add(48*time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA of the Azure store"}, NotBefore: nb, NotAfter: na, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	cad, cak := mk(ca, ca, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: nb, NotAfter: na, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "*.vault.azure.net", "login.microsoftonline.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cac, err := x509.ParseCertificate(cad)
	must(err)
	ld, lk := mk(leaf, cac, cak)
	must(os.MkdirAll(dir, 0o755))
	must(os.WriteFile(filepath.Join(dir, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cad}), 0o644))
	return tls.Certificate{Certificate: [][]byte{ld, cad}, PrivateKey: lk}
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "listen address")
	dir := flag.String("dir", ".", "where to write ca.pem and port")
	flag.Parse()
	s := &srv{vaults: map[string]map[string]*secret{}, tokens: map[string]principal{}, clients: map[string][2]string{
		"app-admin": {"admin-secret", "*"}, "app-reader": {"reader-secret", "get"}, "app-denied": {"denied-secret", ""}, "app-revoked": {"revoked-secret", "get"}}}
	c := certs(*dir)
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	os.WriteFile(filepath.Join(*dir, "port"), []byte(fmt.Sprint(l.Addr().(*net.TCPAddr).Port)), 0o644)
	log.Printf("listening on https://%s, CA %s/ca.pem", l.Addr(), *dir)
	h := &http.Server{Handler: s, TLSConfig: &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2", "http/1.1"}}}
	log.Fatal(h.ServeTLS(l, "", ""))
}
