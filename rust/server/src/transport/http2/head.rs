//! The head of a request on HTTP/2, as the services read it.

use bytes::Bytes;
use headgate_http2::RequestHead;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::headers::{HeaderField, Headers, NameBits};

/// A head, which is made once for all requests of a connection that have the same.
pub struct Http2Head {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub target: PathAndQuery,
    text: Bytes,
    fields: Vec<HeaderField>,
    names: NameBits,
}

impl From<RequestHead> for Http2Head {
    fn from(head: RequestHead) -> Http2Head {
        let RequestHead { method, target, text, fields, .. } = head;
        // All places are below 64 KiB, because a head is no longer than that.
        let fields: Vec<_> =
            fields.into_iter().filter_map(|(name, value)| HeaderField::at(name, value)).collect();
        let names = NameBits::of(&text, &fields);
        Http2Head { method, target, text, fields, names }
    }
}

impl Http2Head {
    /// The header fields.
    pub fn headers(&self) -> Headers<'_> {
        Headers::of_known_list(&self.text, &self.fields, self.names)
    }

    /// The header fields as a map.
    pub fn to_map(&self) -> HeaderMap {
        let pairs = self.fields.iter().filter_map(|field| {
            let name = HeaderName::from_bytes(field.name(&self.text)).ok()?;
            Some((name, HeaderValue::from_bytes(field.value(&self.text)).ok()?))
        });
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }
}
